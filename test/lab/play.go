package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"anyedge/test/lab/edge"
)

// event is something that can be made to happen.
type event struct {
	name, arguments, doc string
	play                 func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error)
}

var events = []event{
	{"hang-worker", "NODE", "stop the worker in its tracks", node((*edge.Lab).HangWorker)},
	{"kill-worker", "NODE", "SIGKILL to the worker", node((*edge.Lab).KillWorker)},
	{"kill-agent", "NODE", "SIGKILL to the agent", node((*edge.Lab).KillAgent)},
	{"start", "MACHINE", "start what should run there", func(_ context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return time.Now(), l.Start(args[0])
	}},
	{"power-off", "MACHINE", "links down, then everything killed", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return l.PowerOff(ctx, args[0])
	}},
	{"power-on", "MACHINE", "links up, everything started", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return time.Now(), l.PowerOn(ctx, args[0])
	}},
	{"link-down", "END", "one end of a cable down", link(false)},
	{"link-up", "END", "and up again", link(true)},
	{"lose", "END", "lose silently what this end sends", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		end, err := l.ParseEnd(args[0])
		if err != nil {
			return time.Time{}, err
		}
		return l.Lose(ctx, end)
	}},
	{"mend", "END", "lose it no longer", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		end, err := l.ParseEnd(args[0])
		if err != nil {
			return time.Time{}, err
		}
		return time.Now(), l.Mend(ctx, end)
	}},
	{"flap", "ROUTER", "end its BGP sessions, which come back", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return l.FlapSessions(ctx, args[0])
	}},
	{"flap-node", "NODE", "end the BGP session with one node, which comes back", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return l.FlapSession(ctx, args[0])
	}},
	{"refuse", "NODE", "a node resets what comes to the IPv4 service address", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return l.Refuse(ctx, args[0], false)
	}},
	{"admit", "NODE", "and no longer", func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		return time.Now(), l.Admit(ctx, args[0])
	}},
	{"stop-consul", "", "Consul keeps its connections and says nothing", func(_ context.Context, l *edge.Lab, _ []string) (time.Time, error) { return l.StopConsul() }},
	{"continue-consul", "", "Consul goes on", func(_ context.Context, l *edge.Lab, _ []string) (time.Time, error) { return l.ContinueConsul() }},
}

func node(play func(*edge.Lab, string) (time.Time, error)) func(context.Context, *edge.Lab, []string) (time.Time, error) {
	return func(_ context.Context, l *edge.Lab, args []string) (time.Time, error) { return play(l, args[0]) }
}

func link(up bool) func(context.Context, *edge.Lab, []string) (time.Time, error) {
	return func(ctx context.Context, l *edge.Lab, args []string) (time.Time, error) {
		end, err := l.ParseEnd(args[0])
		if err != nil {
			return time.Time{}, err
		}
		return l.SetLink(ctx, end, up)
	}
}

func (c lab) play(ctx context.Context, l *edge.Lab, args []string) error {
	if len(args) == 0 {
		return errors.New("play: the name of an event")
	}
	for _, e := range events {
		if e.name != args[0] {
			continue
		}
		if got, want := len(args)-1, len(strings.Fields(e.arguments)); got != want {
			return fmt.Errorf("play %s takes %d arguments %s", e.name, want, e.arguments)
		}
		at, err := e.play(ctx, l, args[1:])
		if err == nil {
			fmt.Fprintf(c.out, "%s %s\n", at.Format("15:04:05.000"), strings.Join(args, " "))
		}
		return err
	}
	return fmt.Errorf("there is no event %q", args[0])
}
