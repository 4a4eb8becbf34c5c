package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"anyedge/configs"
	"anyedge/pop"
)

// steps are the story: what an operator wants to have seen before he trusts
// the edge.
func (l *Lab) steps() []step {
	steps := []step{
		{"served over HTTP/1.1", none, func(ctx context.Context) (string, error) { return l.served(ctx, 0, "HTTP/1.1") }},
		{"served over HTTP/2", none, func(ctx context.Context) (string, error) { return l.served(ctx, 1, "HTTP/2.0") }},
		{"a session resumes at every PoP", none, l.resumes},
		{"DNS answers by client subnet", none, l.dnsSteers},
		{"steering explained, and what if", none, l.steeringExplained},
		{"backend added to the inventory", none, l.backendAdded},
		{"backend removed again", none, l.backendRemoved},
		{"bad config refused", none, l.badConfig},
		{"worker killed: no BGP change", inFlight, l.workerKilled},
		{"worker hangs: withdrawn, cured", shown, l.workerHangs},
		{"drained in order", none, l.drained},
		{"undrained", none, l.undrained},
		{"fleet store gone: nothing moves", none, l.storeGone},
		{"agent killed: traffic and DNS move", shown, l.agentKilled},
	}
	if len(l.cfg.Pops) > 2 {
		steps = append(steps, step{"last PoP hangs: withdrawal refused", shown, l.lastRefused})
	}
	return append(steps, step{"killed PoPs come back", shown, l.comeBack})
}

// first and second are the two PoPs that the router prefers.
func (l *Lab) first() configs.LabPop { return l.cfg.Pops[0] }

func (l *Lab) second() configs.LabPop { return l.cfg.Pops[1] }

// backendAdded puts the spare origin into the best PoP's pool.
func (l *Lab) backendAdded(ctx context.Context) (string, error) {
	if err := l.setInventory(ctx, 0, l.first().Origins+1); err != nil {
		return "", err
	}
	start, spare := time.Now(), originName(l.first(), l.first().Origins)
	err := l.eventually(ctx, spare+" gets traffic", 15*time.Second, func(ctx context.Context) error {
		r, err := get(ctx, l.load.clients[0], l.load.urls[0])
		if err == nil && r.header.Get(originField) != spare {
			err = fmt.Errorf("served by %s", r.header.Get(originField))
		}
		return err
	})
	return fmt.Sprintf("%s probed and served %d ms later", spare, time.Since(start).Milliseconds()), err
}

// backendRemoved takes it out again: once the PoP knows, it gets no request.
func (l *Lab) backendRemoved(ctx context.Context) (string, error) {
	if err := l.setInventory(ctx, 0, l.first().Origins); err != nil {
		return "", err
	}
	spare := l.layout.spareOrigin(0, l.first().Origins)
	err := l.eventually(ctx, "the PoP forgets the backend", 10*time.Second, func(ctx context.Context) error {
		var pools pop.Pools
		if err := l.admin(ctx, l.first(), "/v1/pools", &pools); err != nil {
			return err
		}
		for _, p := range pools.Pools {
			for _, b := range p.Backends {
				if b.Address == spare {
					return fmt.Errorf("%s is still in pool %s", spare, p.Name)
				}
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	const requests = 60
	for range requests {
		r, err := get(ctx, l.load.clients[0], l.load.urls[0])
		if err != nil {
			return "", err
		}
		if name := r.header.Get(originField); name == originName(l.first(), l.first().Origins) {
			return "", fmt.Errorf("%s still got a request", name)
		}
	}
	return fmt.Sprintf("none of %d requests reached it", requests), nil
}

// badConfig breaks the first PoP's config file and reloads it, then mends it.
func (l *Lab) badConfig(ctx context.Context) (string, error) {
	file := l.path(l.first().Name + ".yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	bad := bytes.Replace(good, []byte("pool: web,"), []byte("pool: nowhere,"), 1)
	if bytes.Equal(good, bad) {
		return "", errors.New("the config has no route to break")
	}
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	refused, err := l.reload(ctx, bad, func(s pop.Status) error {
		if s.Config.LastError == "" {
			return errors.New("not refused yet")
		}
		return nil
	})
	if err == nil && (refused.Config.Generation != before.Config.Generation || refused.Worker.PID != before.Worker.PID) {
		err = fmt.Errorf("generation %d became %d", before.Config.Generation, refused.Config.Generation)
	}
	_, mended := l.reload(ctx, good, func(s pop.Status) error {
		if s.Config.LastError != "" {
			return errors.New(s.Config.LastError)
		}
		return nil
	})
	if err := errors.Join(err, mended); err != nil {
		return "", err
	}
	return firstLine(refused.Config.LastError), nil
}

// reload writes the first PoP's config, sends SIGHUP and waits for what holds
// after it.
func (l *Lab) reload(ctx context.Context, data []byte, holds func(pop.Status) error) (pop.Status, error) {
	if err := l.write(l.first().Name+".yaml", data); err != nil {
		return pop.Status{}, err
	}
	if err := l.agents[l.first().Name].signal(syscall.SIGHUP); err != nil {
		return pop.Status{}, err
	}
	return l.until(ctx, l.first(), 10*time.Second, "reload", holds)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
