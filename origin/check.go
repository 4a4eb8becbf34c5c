package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"anyedge/internal/health"
)

// maxCheckBody is how much of a check's response is read, in bytes, so that a
// short answer ends in good order and a long one costs little.
const maxCheckBody = 64 << 10

// checkFunc checks a backend once. nil passes. It returns soon after ctx ends.
type checkFunc func(ctx context.Context, address netip.AddrPort, cfg *Config) error

// keepChecking checks m until ctx ends: the first time at once, the second time
// after a random part of the interval, so that the checks of backends that came
// together spread out, and then at every interval.
func (p *Pool) keepChecking(ctx context.Context, m *member) {
	var counter health.Counter // follows every result, until it has a rise and a fall
	if seed := m.judged.Load().state; seed != health.Unknown {
		counter.Observe(seed == health.Healthy)
	}
	share := rand.Float64()
	for {
		cfg := p.config.Load()
		start := time.Now()
		err := p.checkOnce(ctx, m.address, cfg)
		if ctx.Err() != nil {
			return
		}
		counter.Rise, counter.Fall = cfg.Health.Rise, cfg.Health.Fall
		state, _ := counter.Observe(err == nil)
		p.judge(m, start, state, err)
		if !p.awaitCheck(ctx, m, start, share) {
			return
		}
		share = 1
	}
}

// checkOnce runs one check within its timeout.
func (p *Pool) checkOnce(ctx context.Context, address netip.AddrPort, cfg *Config) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Health.Timeout)
	defer cancel()
	err := p.check(ctx, address, cfg)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", cfg.Health.Timeout)
	}
	return err
}

// awaitCheck waits until share of the interval after start, as the config is
// then. It returns false when ctx ends.
func (p *Pool) awaitCheck(ctx context.Context, m *member, start time.Time, share float64) bool {
	for {
		interval := time.Duration(share * float64(p.config.Load().Health.Interval))
		timer := time.NewTimer(time.Until(start.Add(interval)))
		select {
		case <-timer.C:
			return true
		case <-m.reconfigured:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// judge records the outcome of a check that began at start.
func (p *Pool) judge(m *member, start time.Time, state health.State, err error) {
	old := m.judged.Load()
	now := time.Now()
	j := &judgement{state: state, since: old.since, at: start, took: now.Sub(start)}
	if err != nil {
		j.err = err.Error()
		m.checksFailed.Add(1)
	} else {
		m.checksPassed.Add(1)
	}
	if state != old.state {
		j.since = now
	}
	m.judged.Store(j)
	if state != old.state {
		p.republish()
		p.log.Info("backend state changed", "backend", m.address, "from", old.state, "to", state, "reason", j.err)
	}
	if old.at.IsZero() {
		p.checked(m)
	}
}

// checkBackend is the real check.
func checkBackend(ctx context.Context, address netip.AddrPort, cfg *Config) error {
	if cfg.Health.Type == CheckHTTP {
		return checkHTTP(ctx, address, cfg)
	}
	conn, err := connect(ctx, address, cfg)
	if err != nil {
		return err
	}
	return conn.Close()
}

// checkHTTP passes when the backend answers a GET with any 2xx. It uses a new
// connection, because a backend that cannot accept one cannot serve.
func checkHTTP(ctx context.Context, address netip.AddrPort, cfg *Config) error {
	target, err := url.ParseRequestURI(cfg.Health.Path)
	if err != nil {
		return fmt.Errorf("path of the check: %w", err)
	}
	target.Scheme, target.Host = "http", address.String()
	var protocols http.Protocols
	protocols.SetHTTP1(!cfg.HTTP2)
	protocols.SetUnencryptedHTTP2(cfg.HTTP2)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialTCP(ctx, address)
		},
		DisableKeepAlives:  true,
		DisableCompression: true,
		Protocols:          &protocols,
	}
	defer transport.CloseIdleConnections()
	if cfg.TLS != nil {
		target.Scheme = "https"
		protocols.SetHTTP2(true)
		transport.TLSClientConfig = cfg.TLS.Clone()
		transport.TLSClientConfig.NextProtos = nil // the transport offers what it speaks
	}

	req := (&http.Request{
		Method: http.MethodGet,
		URL:    target,
		Host:   cfg.Health.Host, // empty: the URL's
		Header: http.Header{"User-Agent": {"anyedge-check"}},
	}).WithContext(ctx)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	_, err = io.CopyN(io.Discard, resp.Body, maxCheckBody)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}
