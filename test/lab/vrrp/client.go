package vrrp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Family is a family of addresses.
type Family string

// The families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// Families lists them.
func Families() []Family { return []Family{IPv4, IPv6} }

const (
	// pace is between the client's requests over one family.
	pace = 10 * time.Millisecond
	// requestTimeout bounds one of them: less than the second after which a
	// client's kernel repeats a lost SYN, so that what fails is seen to.
	requestTimeout = 500 * time.Millisecond
)

// fetch sends one request from the client over a new connection, and returns the
// name of the node that served it.
func fetch(ctx context.Context, f Family) (by string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := space(client).Dial(ctx, "tcp", services[f].String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}

// result is what became of one request.
type result struct {
	start, end time.Time
	by         string
	err        error
}

// load is a client that sends one request after the other at the same pace,
// whatever becomes of them.
type load struct {
	family Family

	mu      sync.Mutex
	results []result      // in the order of their ends
	added   chan struct{} // closed and replaced with each
}

func newLoad(f Family) *load { return &load{family: f, added: make(chan struct{})} }

// run sends until ctx ends, and waits for what is under way.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	requests := context.WithoutCancel(ctx)
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		wg.Go(func() {
			r := result{start: time.Now()}
			r.by, r.err = fetch(requests, l.family)
			r.end = time.Now()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.results = append(l.results, r)
			close(l.added)
			l.added = make(chan struct{})
		})
	}
}

// served returns when n requests that began after a time were served by a node,
// and when the first of them was.
func (l *load) served(ctx context.Context, by string, after time.Time, n int) (first time.Time, err error) {
	for {
		l.mu.Lock()
		count, added := 0, l.added
		var last error
		for _, r := range l.results {
			if r.err != nil {
				last = r.err
			}
			if r.err == nil && r.by == by && r.start.After(after) {
				if count++; count == 1 {
					first = r.end
				}
			}
		}
		l.mu.Unlock()
		if count >= n {
			return first, nil
		}
		select {
		case <-added:
		case <-ctx.Done():
			return first, fmt.Errorf("%s: %d requests served by %s, want %d; the last failure: %w", l.family, count, by, n, last)
		}
	}
}

// gap is the longest time in which no request was served, from the last one
// served before a time on, and how many failed.
func (l *load) gap(from time.Time) (longest time.Duration, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last time.Time
	for _, r := range l.results {
		switch {
		case r.err != nil:
			failed++
		case r.end.Before(from) || last.IsZero():
			last = r.end
		default:
			longest = max(longest, r.end.Sub(last))
			last = r.end
		}
	}
	return longest, failed
}
