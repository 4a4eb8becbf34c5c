package pop

import (
	"context"
	"math"
	"time"

	"anyedge/pop/headroom"
	"anyedge/pop/proxy"
)

const (
	// shedMax leaves a trickle, by which the end of the trouble can be seen.
	shedMax = 95.0
	// shedUp and shedDown bound how fast the share of refused requests grows and
	// shrinks, in percent a second: load follows late, and what is let in at
	// once comes at once.
	shedUp   = 20.0
	shedDown = 5.0
	// shedRepeat is the pace at which the worker is told again; see
	// [proxy.ShedTTL].
	shedRepeat = time.Second
)

// shedding decides which share of new requests a node refuses. A node that wants
// to leave and may not, or that is out of room, is de-preferred; clients for whom
// it is the best place all the same keep coming, and those that it cannot carry
// are told so at once instead of failing slowly.
//
// It is pure: the controller owns it and hands in the time.
type shedding struct {
	percent float64
	at      time.Time // of the last step
}

// step returns the share to refuse from now on, 0 to 100 percent. over says that
// the node is up against its will, and usage what its worker uses.
//
// Above the shed mark the share is what would bring the fullest resource back to
// the mark: with the share p refused now, the load that asks is used / (1-p).
// Between the warn mark and the shed mark it stays, so that it does not swing
// with its own effect; below, and when the trouble is over, it shrinks.
func (s *shedding) step(now time.Time, over bool, usage []headroom.Usage) int {
	elapsed := min(now.Sub(s.at), time.Second).Seconds()
	s.at = now
	worst := 0.0
	for _, u := range usage {
		worst = max(worst, u.Utilization())
	}
	want := s.percent
	switch {
	case over && worst >= headroom.ShedAt:
		want = min(shedMax, 100-(100-s.percent)*headroom.ShedAt/worst)
	case !over || worst < headroom.WarnAt:
		want = 0
	}
	s.percent = min(max(want, s.percent-shedDown*elapsed), s.percent+shedUp*elapsed)
	return int(math.Round(s.percent))
}

// shed has the worker refuse the share that the controller decided on. Telling
// it may block, so it has a goroutine of its own.
func (a *Agent) shed(ctx context.Context) error {
	ticker := time.NewTicker(shedRepeat / 2)
	defer ticker.Stop()
	told := 0
	for since := time.Now(); ; {
		percent := int(a.shedding.Load())
		if percent != told || percent > 0 && time.Since(since) >= shedRepeat {
			if err := a.supervisor.shed(percent); err != nil {
				a.log.Debug("worker was not told what to shed", "error", err)
			} else {
				told, since = percent, time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// shed tells the worker, if one runs, which share of new requests to refuse.
func (s *supervisor) shed(percent int) error {
	s.mu.Lock()
	w := s.running
	s.mu.Unlock()
	if w == nil {
		return errNoWorker
	}
	return w.conn.Send(proxy.KindShed, proxy.Shed{Percent: percent})
}
