package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"anyedge/test/bench/rig"
)

const (
	// handshakers is how many clients shake hands at a time.
	handshakers = 16
	// dialTimeout bounds everything that is done with one connection.
	dialTimeout = 10 * time.Second
	// sessionMax bounds the wait for a session that the proxy resumes.
	sessionMax = 10 * time.Second
)

// handshakes generates TLS handshakes, with TCP open and close: connect,
// handshake, say goodbye, and wait until the proxy has closed too, which proves
// that it has worked through the whole handshake. Resumed ones all resume the
// session of one earlier connection per client.
func handshakes(resumed bool) generator {
	return func(ctx context.Context, b *bench, p *rig.Process, length time.Duration) (load, error) {
		ctx, cancel := context.WithTimeout(ctx, length+toolGrace)
		defer cancel()
		start := time.Now()
		end := start.Add(length)
		var times [handshakers][]time.Duration
		group, ctx := errgroup.WithContext(ctx)
		for i := range times {
			group.Go(func() error {
				config := b.rig.ClientTLS()
				if resumed {
					var err error
					if config.ClientSessionCache, err = session(ctx, config, p.TLS); err != nil {
						return fmt.Errorf("first session: %w", err)
					}
				}
				for time.Now().Before(end) {
					t, err := handshake(ctx, config, p.TLS, resumed)
					if err != nil {
						return err
					}
					times[i] = append(times[i], t)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return load{}, err
		}
		l := load{took: time.Since(start)}
		var all []time.Duration
		for _, t := range times {
			all = append(all, t...)
		}
		l.done, l.p50, l.p99 = len(all), percentile(all, 50), percentile(all, 99)
		return l, nil
	}
}

// handshake does one handshake and returns how long it took from the SYN to the
// proxy's close.
func handshake(ctx context.Context, config *tls.Config, address netip.AddrPort, resumed bool) (time.Duration, error) {
	start := time.Now()
	c, err := dial(ctx, config, address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if got := c.ConnectionState().DidResume; got != resumed {
		return 0, fmt.Errorf("resumed is %t, want %t", got, resumed)
	}
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
		return 0, fmt.Errorf("%d bytes where the proxy should close: %v", n, err)
	}
	return time.Since(start), nil
}

// dial opens a TLS connection whose whole life is bounded.
func dial(ctx context.Context, config *tls.Config, address netip.AddrPort) (*tls.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, config)
	if err := errors.Join(raw.SetDeadline(time.Now().Add(dialTimeout)), c.HandshakeContext(ctx)); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// kept is a session cache that keeps the first session it gets and gives it out
// again and again. Only one goroutine uses it, with one connection at a time.
type kept struct {
	state *tls.ClientSessionState
}

func (k *kept) Get(string) (*tls.ClientSessionState, bool) { return k.state, k.state != nil }

func (k *kept) Put(_ string, s *tls.ClientSessionState) {
	if k.state == nil {
		k.state = s
	}
}

// session returns a cache with a session that the proxy resumes. A node that has
// just started may not have the fleet's ticket keys yet and then does not resume
// what it first gave out, so it is asked again for a while.
func session(ctx context.Context, config *tls.Config, address netip.AddrPort) (tls.ClientSessionCache, error) {
	for end := time.Now().Add(sessionMax); ; {
		cache, err := firstSession(ctx, config, address)
		if err != nil {
			return nil, err
		}
		config := config.Clone()
		config.ClientSessionCache = cache
		_, err = handshake(ctx, config, address, true)
		if err == nil {
			return cache, nil
		}
		if time.Now().After(end) {
			return nil, err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// firstSession makes a full handshake and a request, with whose answer the
// tickets have come.
func firstSession(ctx context.Context, config *tls.Config, address netip.AddrPort) (*kept, error) {
	cache := new(kept)
	config = config.Clone()
	config.ClientSessionCache = cache
	c, err := dial(ctx, config, address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := get(c, bufio.NewReader(c)); err != nil {
		return nil, err
	}
	if cache.state == nil {
		return nil, errors.New("the proxy sent no ticket")
	}
	return cache, nil
}
