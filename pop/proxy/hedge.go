package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/origin"
	"anyedge/pop/proxy/exchange"
)

// hedgeable reports whether the request may be sent to two backends at once.
func (f *forward) hedgeable() bool {
	r := &f.x.Request
	return f.x.Tries == 0 && r.Body == nil && r.Upgrade == "" && safe(r.Method)
}

// hedge is one request on its way to two backends.
type hedge struct {
	forward *forward
	route   *route
	done    chan *attempt // has room for both
	tasks   sync.WaitGroup
	split   atomic.Bool // the second attempt has begun
}

// attempt is one of the two.
type attempt struct {
	pick   *origin.Pick
	cancel context.CancelFunc
	res    *exchange.Response
	err    error
}

// tryTwo sends the request to one backend and, if that keeps silent for as long
// as the route says, to another one. The first response is passed on, the other
// attempt is given up. It returns as tryOne does.
func (f *forward) tryTwo(ctx context.Context, r *route, failed *failure) (done bool) {
	x := f.x
	first, err := r.pool.pool.Pick(nil)
	if err != nil {
		failed.repeat = false
		return false
	}
	x.Request.HeadWait, x.Request.BodyWait = f.patience(r), r.pool.idle()
	h := &hedge{forward: f, route: r, done: make(chan *attempt, 2)}
	defer h.tasks.Wait()
	open := []*attempt{h.begin(ctx, first)}
	timer := time.NewTimer(r.hedge)
	defer timer.Stop()
	for len(open) > 0 {
		select {
		case <-timer.C:
			if other, ok := h.second(); ok {
				open = append(open, h.begin(ctx, other))
			}
		case a := <-h.done:
			open = without(open, a)
			x.Backend = a.pick.Backend().Address
			if a.err != nil {
				*failed = f.classify(ctx, a.err)
				f.tried(r.pool, a.pick, failed.result, failed.blame)
				a.cancel()
				continue
			}
			for _, loser := range open {
				h.abandon(loser)
			}
			result, blame := f.answered(ctx, r, a.res)
			f.tried(r.pool, a.pick, result, blame)
			a.cancel()
			return true
		}
	}
	return false
}

// second picks the second backend, if there is one and the budget allows.
func (h *hedge) second() (*origin.Pick, bool) {
	f, pool := h.forward, h.route.pool
	other, err := pool.pool.Pick(f.offered[:f.x.Tries])
	if err != nil {
		return nil, false
	}
	if !h.route.withdraw() {
		other.Done(nil)
		return nil, false
	}
	f.worker.metrics.hedges.WithLabelValues(pool.name).Inc()
	h.split.Store(true)
	return other, true
}

// begin starts an attempt.
func (h *hedge) begin(ctx context.Context, pick *origin.Pick) *attempt {
	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{pick: pick, cancel: cancel}
	request, to := h.forward.x.Request, h.forward.offer(pick)
	h.tasks.Go(func() {
		a.res, a.err = h.route.back().RoundTrip(ctx, to, &request, h.inform)
		h.done <- a
	})
	return a
}

// inform passes an interim response on while there is but one attempt.
func (h *hedge) inform(status int, fields exchange.Fields) {
	if !h.split.Load() {
		h.forward.inform(status, fields)
	}
}

// abandon gives up the attempt that is still open.
func (h *hedge) abandon(loser *attempt) {
	loser.cancel()
	h.tasks.Go(func() {
		<-h.done
		if loser.res != nil && loser.res.Body != nil {
			loser.res.Body.Close()
		}
		h.forward.tried(h.route.pool, loser.pick, tryCanceled, nil)
	})
}

// without returns the attempts but a.
func without(attempts []*attempt, a *attempt) []*attempt {
	for i := range attempts {
		if attempts[i] == a {
			return append(attempts[:i:i], attempts[i+1:]...)
		}
	}
	return attempts
}
