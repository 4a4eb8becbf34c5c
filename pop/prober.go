package pop

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"time"

	"anyedge/configs"
	"anyedge/pop/proxy"
)

// probeResult is the outcome of one request through a service address.
type probeResult struct {
	check  string
	ok     bool
	detail string // why it failed
}

// checkName names the check of a listener.
func checkName(listener string) string { return "probe:" + listener }

// probe requests through one service address until ctx ends, as a client
// would: a new connection, a TLS handshake where the listener has one, a
// request that the worker itself answers. Origins have no part in it. A listener
// whose address may be on another host has a door.
func probe(ctx context.Context, l configs.Listener, door netip.AddrPort, h configs.Health, token string, results chan<- probeResult) {
	client := &http.Client{
		Timeout: h.ProbeTimeout.Std(),
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       entrance{reachable(l.Address), door}.dial,
			// The question is whether this node serves, not who it is: the
			// token proves that our own worker answers.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
	}
	scheme := "https"
	if l.Clear {
		scheme = "http"
	}
	url := fmt.Sprintf("%s://%s/", scheme, reachable(l.Address))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(spread(h.ProbeInterval.Std()))
		r := probeResult{check: checkName(l.Name), ok: true}
		if err := probeOnce(ctx, client, url, token); err != nil {
			if ctx.Err() != nil {
				return // cut off: that says nothing about the address
			}
			r.ok, r.detail = false, err.Error()
		}
		select {
		case results <- r:
		case <-ctx.Done():
			return
		}
	}
}

// spread returns an interval, or up to a tenth more or less, so that probes
// which began together do not go on together.
func spread(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

func probeOnce(ctx context.Context, client *http.Client, url, token string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set(proxy.ProbeField, token)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("status %d, want 204 from the worker", res.StatusCode)
	}
	return nil
}

// reachable returns the address to dial for a listener: one bound to every
// address is reached over loopback.
func reachable(a netip.AddrPort) netip.AddrPort {
	if !a.Addr().IsUnspecified() {
		return a
	}
	if a.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
}
