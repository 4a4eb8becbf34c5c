package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"anyedge/origin"
	"anyedge/pop/proxy/exchange"
)

// maxTries is how many backends one request may be offered to, retries and a
// hedge included.
const maxTries = 8

// send tries backends until one answers, and passes its response on.
func (f *forward) send(ctx context.Context, r *route) {
	x := f.x
	r.pool.budget.deposit(r.budget)
	if x.Request.Body != nil {
		f.upload = newUpload(x.Request.Body, r.retries > 0 && f.mayRepeat(r))
		x.Request.Body = f.upload
		defer f.upload.free()
	}
	var last failure
	for again := true; again; again = f.again(r, last) {
		var done bool
		if r.hedge > 0 && f.hedgeable() {
			done = f.tryTwo(ctx, r, &last)
		} else {
			done = f.tryOne(ctx, r, &last)
		}
		if done {
			return
		}
	}
	switch {
	case x.Tries == 0:
		f.answer(503, exchange.OutcomeNoBackend, "no backend is usable")
	case last.status == 0:
		x.Outcome = last.outcome // nobody is left to answer
	default:
		f.answer(last.status, last.outcome, last.text)
	}
}

// tryOne sends the request to one backend and passes its response on. It returns
// false when there was none; failed then says why, or is left as it is if no
// backend could be picked.
func (f *forward) tryOne(ctx context.Context, r *route, failed *failure) (done bool) {
	x := f.x
	pick, err := r.pool.pool.Pick(f.offered[:x.Tries])
	if err != nil {
		failed.repeat = false
		return false
	}
	x.Request.HeadWait, x.Request.BodyWait = f.patience(r), r.pool.idle()
	x.Backend = f.offer(pick)
	res, err := r.back().RoundTrip(ctx, x.Backend, &x.Request, f.informed)
	if err != nil {
		*failed = f.classify(ctx, err)
		f.tried(r.pool, pick, failed.result, failed.blame)
		return false
	}
	result, blame := f.answered(ctx, r, res)
	f.tried(r.pool, pick, result, blame)
	return true
}

// answered passes a response on, and returns how the try ended.
func (f *forward) answered(ctx context.Context, r *route, res *exchange.Response) (result string, blame error) {
	f.x.Head = time.Since(f.x.Start)
	r.pool.head.Observe(f.x.Head.Seconds())
	f.upload.settle()
	return f.respond(ctx, r, res)
}

// withdraw takes a retry or a hedge off the pool's budget, if there is one.
func (r *route) withdraw() bool { return r.budget > 0 && r.pool.budget.withdraw() }

// again reports whether another backend is to be tried, and makes the request
// ready for it. A connect that failed gave the origins no load, so another one
// costs no budget.
func (f *forward) again(r *route, last failure) bool {
	if !last.repeat || f.x.Tries > r.retries || f.patience(r) <= 0 || !f.upload.rewind() {
		return false
	}
	if last.result != tryConnectFailed && !r.withdraw() {
		return false
	}
	if f.upload != nil {
		f.x.Request.Ready = f.upload.atHand()
	}
	f.worker.metrics.retries.WithLabelValues(r.pool.name, last.result).Inc()
	return true
}

// offer notes that a backend is tried, and returns its address.
func (f *forward) offer(pick *origin.Pick) netip.AddrPort {
	address := pick.Backend().Address
	f.offered[f.x.Tries] = address
	f.x.Tries++
	return address
}

// patience is how long the next try may take to a response head. What went
// before it, the time of a short body included, is off the route's timeout.
func (f *forward) patience(r *route) time.Duration {
	left := r.timeout
	if f.x.Tries > 0 {
		left -= time.Since(f.x.Start)
	}
	return min(left, r.pool.firstByte())
}

// mayRepeat reports whether a failed try may leave the request repeatable, so
// that it pays to keep its body.
func (f *forward) mayRepeat(r *route) bool {
	return idempotent(f.x.Request.Method) || r.pool.protocol() != protocolH1
}

// idempotent methods do no more harm when they are sent twice (RFC 9110,
// 9.2.2).
func idempotent(method string) bool {
	return safe(method) || method == "PUT" || method == "DELETE"
}

// safe methods do none at all (RFC 9110, 9.2.1).
func safe(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// tried ends one try of a backend.
func (f *forward) tried(pool *upstream, pick *origin.Pick, result string, blame error) {
	pick.Done(blame)
	if result == tryOK {
		pool.ok.Inc()
		return
	}
	f.worker.metrics.tries.WithLabelValues(pool.name, result).Inc()
}

// failure is what a try came to that brought no response.
type failure struct {
	result  string // of the try
	blame   error  // that the backend is to blame for
	repeat  bool   // another backend may be tried, as far as the body allows
	status  int    // to answer with if none is; 0 when the client is gone
	outcome exchange.Outcome
	text    string
}

// classify tells what became of a try.
func (f *forward) classify(ctx context.Context, err error) failure {
	if f.upload != nil && ctx.Err() != nil {
		// A codec that gives up on a body may end ctx before we are told why.
		f.upload.end()
	}
	again := idempotent(f.x.Request.Method)
	switch broken := f.upload.failure(); {
	case errors.Is(err, exchange.ErrSlow):
		return failure{tryTimeout, err, again, 504, exchange.OutcomeOriginTimeout, "the origin did not answer in time"}
	case isTimeout(broken):
		return failure{tryCanceled, nil, false, 408, exchange.OutcomeClientTimeout, "the request's body did not come in time"}
	case errors.Is(broken, exchange.ErrMalformed):
		return failure{tryCanceled, nil, false, 400, exchange.OutcomeRefused, "the request's body is malformed"}
	case broken != nil || ctx.Err() != nil:
		return failure{tryCanceled, nil, false, 0, exchange.OutcomeClientGone, ""}
	case errors.Is(err, exchange.ErrConnect):
		return failure{tryConnectFailed, err, true, 502, exchange.OutcomeConnectFailed, "no backend could be connected to"}
	case errors.Is(err, exchange.ErrRefused):
		return failure{tryRefused, err, true, 503, exchange.OutcomeOriginFailed, "the origin refused the request"}
	case errors.Is(err, exchange.ErrUnanswered):
		return failure{tryFailed, err, again, 502, exchange.OutcomeOriginFailed, "the origin gave no answer"}
	}
	return failure{tryFailed, err, false, 502, exchange.OutcomeOriginFailed, "the origin gave no valid answer"}
}
