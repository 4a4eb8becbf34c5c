package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"anyedge/pop"
)

// workerKilled kills the best PoP's worker: its successor takes over on the
// same sockets before the route would have to go.
func (l *Lab) workerKilled(ctx context.Context) (string, error) {
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	if err := signal(before.Worker.PID, syscall.SIGKILL); err != nil {
		return "", err
	}
	start := time.Now()
	after, err := l.until(ctx, l.first(), 10*time.Second, "a new worker is ready", func(s pop.Status) error {
		if s.Worker.PID == before.Worker.PID || !s.Worker.Ready {
			return fmt.Errorf("worker %d, ready %v", s.Worker.PID, s.Worker.Ready)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	took := time.Since(start)
	if after.Announcement.Since != before.Announcement.Since || l.routeOf(l.first().Name) != "announced" {
		return "", fmt.Errorf("the route changed: %s", after.Announcement.Reason)
	}
	return fmt.Sprintf("new worker ready after %d ms, route untouched", took.Milliseconds()), nil
}

// workerHangs stops the best PoP's worker in its tracks.
func (l *Lab) workerHangs(ctx context.Context) (string, error) {
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	if err := signal(before.Worker.PID, syscall.SIGSTOP); err != nil {
		return "", err
	}
	start := time.Now()
	if err := l.routeBecomes(ctx, l.first(), "withdrawn"); err != nil {
		return "", err
	}
	withdrawn := time.Since(start)
	if best := l.bestPop(); best != l.second().Name {
		return "", fmt.Errorf("the best path leads to %q, want %s", best, l.second().Name)
	}
	if err := l.routeBecomes(ctx, l.first(), "announced"); err != nil {
		return "", err
	}
	after, err := l.status(ctx, l.first())
	if err == nil && after.Worker.PID == before.Worker.PID {
		err = errors.New("the worker was not replaced")
	}
	return fmt.Sprintf("withdrawn after %d ms, announced again after %d ms", withdrawn.Milliseconds(), time.Since(start).Milliseconds()), err
}

// drained takes the best PoP out through its admin API.
func (l *Lab) drained(ctx context.Context) (string, error) {
	if err := l.drain(ctx, l.first(), true); err != nil {
		return "", err
	}
	var stages []pop.DrainStage
	_, err := l.until(ctx, l.first(), 30*time.Second, "drained", func(s pop.Status) error {
		if !slices.Contains(stages, s.Drain.Stage) {
			stages = append(stages, s.Drain.Stage)
		}
		if s.Drain.Stage != pop.DrainCompleted {
			return fmt.Errorf("stage %s: %s", s.Drain.Stage, s.Announcement.Reason)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if best := l.bestPop(); best != l.second().Name {
		return "", fmt.Errorf("the best path leads to %q, want %s", best, l.second().Name)
	}
	if err := l.eventually(ctx, "DNS moves", 5*time.Second, l.dnsAvoids(0)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%v, DNS moved", stages), nil
}

func (l *Lab) undrained(ctx context.Context) (string, error) {
	if err := l.drain(ctx, l.first(), false); err != nil {
		return "", err
	}
	if err := l.routeBecomes(ctx, l.first(), "announced"); err != nil {
		return "", err
	}
	return "announced again", l.eventually(ctx, "DNS returns", 5*time.Second, l.dnsAnswersAll)
}

// storeGone takes the fleet store away for a while.
func (l *Lab) storeGone(ctx context.Context) (string, error) {
	before := make(map[string]pop.Status)
	for _, p := range l.cfg.Pops {
		s, err := l.status(ctx, p)
		if err != nil {
			return "", err
		}
		before[p.Name] = s
	}
	if err := l.store.cut(); err != nil {
		return "", err
	}
	start := time.Now()
	err := l.everywhere(ctx, "the loss is noticed", func(s pop.Status) error {
		if s.Fleet.Connected {
			return errors.New("still connected")
		}
		return nil
	})
	if err == nil {
		err = l.hold(ctx, 3*time.Second, before)
	}
	gone := time.Since(start)
	if err := errors.Join(err, l.store.restore()); err != nil {
		return "", err
	}
	err = l.everywhere(ctx, "the store is found again", func(s pop.Status) error {
		if !s.Fleet.Connected {
			return errors.New("not connected")
		}
		return nil
	})
	if err == nil {
		err = l.hold(ctx, time.Second, before)
	}
	return fmt.Sprintf("gone for %.1f s, every route and answer stayed", gone.Seconds()), err
}

// hold watches for a while that no announcement changes and DNS answers stay.
func (l *Lab) hold(ctx context.Context, span time.Duration, before map[string]pop.Status) error {
	for end := time.Now().Add(span); time.Now().Before(end); {
		for _, p := range l.cfg.Pops {
			s, err := l.status(ctx, p)
			if err != nil {
				return err
			}
			if s.Announcement.Since != before[p.Name].Announcement.Since || l.routeOf(p.Name) != "announced" {
				return fmt.Errorf("%s moved: %s", p.Name, s.Announcement.Reason)
			}
		}
		if err := l.dnsAnswersAll(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// agentKilled kills the best PoP's agent, as a lost host would be.
func (l *Lab) agentKilled(ctx context.Context) (string, error) {
	before, err := l.status(ctx, l.first())
	if err != nil {
		return "", err
	}
	start := time.Now()
	if err := l.agents[l.first().Name].kill(); err != nil {
		return "", err
	}
	if err := l.routeBecomes(ctx, l.first(), "withdrawn"); err != nil {
		return "", err
	}
	routed := time.Since(start)
	if _, err := l.servedBy(ctx, l.second()); err != nil {
		return "", err
	}
	if err := l.eventually(ctx, "DNS moves", 10*time.Second, l.dnsAvoids(0)); err != nil {
		return "", err
	}
	steered := time.Since(start)
	if err := l.eventually(ctx, "the orphaned worker ends", 10*time.Second, func(context.Context) error {
		if signal(before.Worker.PID, syscall.Signal(0)) == nil {
			return fmt.Errorf("worker %d still runs", before.Worker.PID)
		}
		return nil
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("route gone after %d ms, DNS after %d ms, worker ended by itself", routed.Milliseconds(), steered.Milliseconds()), nil
}

// lastRefused kills all agents but the last PoP's and makes that one's worker
// hang: nobody is left to take its traffic, so its route must stay.
func (l *Lab) lastRefused(ctx context.Context) (string, error) {
	last := l.cfg.Pops[len(l.cfg.Pops)-1]
	for i, p := range l.cfg.Pops[:len(l.cfg.Pops)-1] {
		if i > 0 {
			if err := l.agents[p.Name].kill(); err != nil {
				return "", err
			}
		}
		// Until its report is too old, the fleet counts on it.
		if err := l.eventually(ctx, p.Name+" is missed", 10*time.Second, l.dnsAvoids(i)); err != nil {
			return "", err
		}
	}
	if _, err := l.servedBy(ctx, last); err != nil {
		return "", err
	}
	before, err := l.status(ctx, last)
	if err != nil {
		return "", err
	}
	if err := signal(before.Worker.PID, syscall.SIGSTOP); err != nil {
		return "", err
	}
	var refused string
	_, err = l.until(ctx, last, 15*time.Second, "de-preferred, then announced again", func(s pop.Status) error {
		if route := l.routeOf(last.Name); route == "withdrawn" || s.Announcement.State == pop.Withdrawn {
			return fmt.Errorf("%s at the router, %s: %s", route, s.Announcement.State, s.Announcement.Reason)
		}
		if s.Guard.Refused != "" {
			refused = s.Guard.Refused
		}
		if refused == "" || s.Worker.PID == before.Worker.PID || s.Announcement.State != pop.Announced {
			return fmt.Errorf("%s: %s", s.Announcement.State, s.Announcement.Reason)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	metrics, err := get(ctx, http.DefaultClient, l.adminURL(last, "/metrics"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(metrics.body)) {
		if strings.HasPrefix(line, "anyedge_pop_withdraw_refusals_total") && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			return refused, nil
		}
	}
	return "", errors.New("the refusal is not in the metrics")
}

// comeBack starts the killed agents again.
func (l *Lab) comeBack(ctx context.Context) (string, error) {
	for _, p := range l.cfg.Pops[:max(len(l.cfg.Pops)-1, 1)] {
		if l.agents[p.Name].ended() == nil {
			if err := l.agents[p.Name].start(); err != nil {
				return "", err
			}
		}
	}
	if err := l.eventually(ctx, "every PoP serves", 30*time.Second, l.allServe); err != nil {
		return "", err
	}
	return fmt.Sprintf("all %d PoPs announced, %s preferred", len(l.cfg.Pops), l.bestPop()), nil
}
