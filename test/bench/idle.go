package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"anyedge/test/bench/rig"
)

const (
	// idleConnections is how many connections the idle scenario holds.
	idleConnections = 5000
	// opening bounds how many of them are opened at the same time.
	opening = 32
	// settleMax bounds the wait for resident memory to stand still.
	settleMax = 20 * time.Second
)

// idle measures resident memory per idle connection: each has made a TLS
// handshake and one request, and is kept alive. What a proxy needs without
// connections is taken off.
func idle(ctx context.Context, b *bench, p *rig.Process) (result, error) {
	if most := b.rig.Connections(); most < idleConnections+opening {
		return result{}, fmt.Errorf("the descriptor limit allows %d connections only", most)
	}
	// Code and pools that the first connections bring in are not the price of
	// each connection.
	if err := hold(ctx, b, p, 2*opening, func([]*conn) error { return nil }); err != nil {
		return result{}, err
	}
	before, err := settled(ctx, p)
	if err != nil {
		return result{}, err
	}
	var after int64
	err = hold(ctx, b, p, idleConnections, func(conns []*conn) (err error) {
		if after, err = settled(ctx, p); err != nil {
			return err
		}
		// Those that the proxy has closed meanwhile cost nothing: there must be none.
		for i, c := range conns {
			if err := c.get(); err != nil {
				return fmt.Errorf("connection %d did not stay: %w", i, err)
			}
		}
		return nil
	})
	return result{cost: float64(after-before) / idleConnections}, err
}

// conn is one kept connection.
type conn struct {
	*tls.Conn
	reader *bufio.Reader
}

func (c *conn) get() error {
	if err := c.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	return get(c, c.reader)
}

// hold opens n connections, makes a request on each, runs f and closes them.
func hold(ctx context.Context, b *bench, p *rig.Process, n int, f func([]*conn) error) error {
	conns := make([]*conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	config := b.rig.ClientTLS()
	group, openCtx := errgroup.WithContext(ctx)
	group.SetLimit(opening)
	for i := range conns {
		group.Go(func() error {
			c, err := dial(openCtx, config, p.TLS)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			conns[i] = &conn{c, bufio.NewReaderSize(c, 512)}
			return conns[i].get()
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return f(conns)
}

// settled returns resident memory in bytes once it has not moved by more than
// half a percent for three seconds, or what it is when the patience ends: a
// collector has to find out that the rush is over.
func settled(ctx context.Context, p *rig.Process) (int64, error) {
	const step, still = 250 * time.Millisecond, 12
	var last int64
	for quiet, end := 0, time.Now().Add(settleMax); quiet < still && time.Now().Before(end); {
		if err := pause(ctx, step); err != nil {
			return 0, err
		}
		u, err := p.Usage()
		if err != nil {
			return 0, err
		}
		if moved := max(u.Resident-last, last-u.Resident); moved*200 > u.Resident {
			quiet, last = 0, u.Resident
			continue
		}
		quiet++
	}
	return last, nil
}

// get makes a request for the small body on a connection and reads the answer
// whole.
func get(w io.Writer, r *bufio.Reader) error {
	if _, err := io.WriteString(w, "GET "+rig.SmallPath+" HTTP/1.1\r\nHost: "+rig.Name+"\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || n != rig.SmallSize) {
		err = fmt.Errorf("status %s with %d bytes", res.Status, n)
	}
	return err
}
