package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"anyedge/internal/daemon"
)

const (
	// startTimeout bounds the wait for the first good answer of a proxy.
	startTimeout = 15 * time.Second
	// stopGrace bounds the orderly end of a proxy, after which it is killed.
	stopGrace = 5 * time.Second
	// checkTimeout bounds the check of a config.
	checkTimeout = 10 * time.Second
)

// Process is a running proxy or origin: one or more operating system processes.
type Process struct {
	Kind  Kind
	Clear netip.AddrPort // HTTP/1.1 in clear text
	TLS   netip.AddrPort // HTTP/1.1 and HTTP/2; invalid for the origin

	child *daemon.Child
	log   string // the file with its output
}

// StartOrigin starts the origin with the static bodies.
func (r *Rig) StartOrigin(ctx context.Context) (*Process, error) {
	return r.start(ctx, &Process{Kind: origin, Clear: netip.AddrPortFrom(hosts[origin], originPort)}, netip.AddrPort{})
}

// StartProxy starts a proxy in front of an origin and returns when a request
// for [SmallPath] through it is answered with anything below 500. The context
// bounds the start only. The caller stops the process.
func (r *Rig) StartProxy(ctx context.Context, kind Kind, origin netip.AddrPort) (*Process, error) {
	host, known := hosts[kind]
	if !known {
		return nil, fmt.Errorf("no proxy is called %q", kind)
	}
	return r.start(ctx, &Process{
		Kind:  kind,
		Clear: netip.AddrPortFrom(host, clearPort),
		TLS:   netip.AddrPortFrom(host, tlsPort),
	}, origin)
}

// start runs p and waits until it serves. On error nothing is left running.
func (r *Rig) start(ctx context.Context, p *Process, origin netip.AddrPort) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := vacant(ctx, p.Clear, p.TLS); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Kind, err)
	}
	config, err := r.render(p.Kind, settings{
		Dir: r.dir, Clear: p.Clear, TLS: p.TLS, Origin: origin,
		Admin:       netip.AddrPortFrom(p.Clear.Addr(), adminPort),
		Connections: r.Connections(), Descriptors: r.descriptors,
	})
	if err != nil {
		return nil, err
	}
	if p.Kind == Anyedge {
		if err := r.check(config); err != nil {
			return nil, err
		}
	}
	cmd, err := r.command(p.Kind, config)
	if err != nil {
		return nil, err
	}
	p.log = filepath.Join(filepath.Dir(config), "log")
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	if p.child, err = daemon.Start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Kind, err)
	}
	if err := p.ready(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("%s does not serve: %w%s", p.Kind, err, p.tail())
	}
	return p, nil
}

// vacant reports an error if somebody listens at an address already: the
// measurement would be of a stranger.
func vacant(ctx context.Context, addresses ...netip.AddrPort) error {
	for _, a := range addresses {
		if !a.IsValid() {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", a.String())
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

// check runs "anyedge check" over a config.
func (r *Rig) check(config string) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.binary, "check", "--config", config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("anyedge check: %w\n%s", err, out)
	}
	return nil
}

// ready waits until the process answers a request, or has ended, or ctx has.
func (p *Process) ready(ctx context.Context) error {
	client := &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		err := p.answers(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-p.child.Done():
			return errors.New("it has ended: " + p.child.Wait().String())
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}

func (p *Process) answers(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Clear.String()+SmallPath, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode >= http.StatusInternalServerError {
		return errors.New("status " + res.Status)
	}
	return nil
}

// Stop ends the process and everything it started, and waits for that. It is
// killed if it does not end within a few seconds.
func (p *Process) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	p.child.Stop(ctx)
}

// Alive reports an error, with what the process wrote last, when it has ended.
func (p *Process) Alive() error {
	select {
	case <-p.child.Done():
		return fmt.Errorf("%s has ended: %s%s", p.Kind, p.child.Wait(), p.tail())
	default:
		return nil
	}
}

// tail returns the end of the process's output, for an error text.
func (p *Process) tail() string {
	const most = 2000
	data, err := os.ReadFile(p.log)
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" {
		return ""
	}
	return "; it wrote:\n" + text[max(0, len(text)-most):]
}
