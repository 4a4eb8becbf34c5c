package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"anyedge/configs"
	"anyedge/pop"
)

// servedBy waits until clients are served by a PoP's origins.
func (l *Lab) servedBy(ctx context.Context, p configs.LabPop) (string, error) {
	var origin string
	err := l.eventually(ctx, p.Name+" serves", 10*time.Second, func(ctx context.Context) error {
		r, err := get(ctx, l.load.clients[2], l.load.urls[2])
		if err != nil {
			return err
		}
		if origin = r.header.Get(originField); !strings.HasPrefix(origin, p.Name+"-") {
			return fmt.Errorf("served by %q", origin)
		}
		return nil
	})
	return origin, err
}

// routeBecomes waits until the router sees a PoP as given.
func (l *Lab) routeBecomes(ctx context.Context, p configs.LabPop, want string) error {
	return l.eventually(ctx, p.Name+" is "+want, 20*time.Second, func(context.Context) error {
		if got := l.routeOf(p.Name); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// until polls a PoP's status until holds returns nil, and returns that status.
func (l *Lab) until(ctx context.Context, p configs.LabPop, limit time.Duration, what string, holds func(pop.Status) error) (pop.Status, error) {
	var s pop.Status
	err := l.eventually(ctx, p.Name+": "+what, limit, func(ctx context.Context) (err error) {
		if s, err = l.status(ctx, p); err != nil {
			return err
		}
		return holds(s)
	})
	return s, err
}

// everywhere waits until something holds at every PoP.
func (l *Lab) everywhere(ctx context.Context, what string, holds func(pop.Status) error) error {
	for _, p := range l.cfg.Pops {
		if _, err := l.until(ctx, p, 15*time.Second, what, holds); err != nil {
			return err
		}
	}
	return nil
}

func signal(pid int, s syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(s)
}
