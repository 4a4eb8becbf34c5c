package proxy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"anyedge/origin"
	"anyedge/pop/proxy/exchange"
)

const (
	// ProbeField carries the agent's token on its probes. With the right one
	// the worker answers by itself, with status 204.
	ProbeField = "Anyedge-Probe"
	// GenerationField tells, on the answer to a probe, which snapshot is in
	// force.
	GenerationField = "Anyedge-Generation"

	// maxTries is how many backends one request may be offered to.
	maxTries = 3
)

// errHead and errBody are why an exchange with an origin was given up.
var (
	errHead = errors.New("no response head in time")
	errBody = errors.New("no piece of the response body in time")
)

// serve is the handler of the codec's exchanges.
func (c *codec) serve(ctx context.Context, x *exchange.Exchange) {
	w := c.listener.worker
	w.inFlight.Add(1)
	f := &forward{worker: w, state: w.state.Load(), codec: c, x: x}
	defer func() {
		if fault := recover(); fault != nil {
			x.Outcome = exchange.OutcomeInternal
			w.log.Error("exchange panicked", "id", x.ID, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
		}
		f.record()
		w.inFlight.Add(-1)
	}()
	f.serve(ctx)
}

// forward is one exchange on its way.
type forward struct {
	worker *Worker
	state  *state
	codec  *codec
	x      *exchange.Exchange
	upload *upload // the request's body; nil if there is none
}

// serve does all of an exchange.
func (f *forward) serve(ctx context.Context) {
	x := f.x
	x.ID = newID()
	hop, err := x.Request.Fields.TakeHop()
	if f.isProbe() {
		f.answerProbe()
		return
	}
	f.worker.requests.Add(1)
	if err != nil {
		f.answer(400, exchange.OutcomeRefused, err.Error())
		return
	}
	if x.Request.Method == "CONNECT" {
		f.answer(501, exchange.OutcomeRefused, "CONNECT is not served here")
		return
	}
	r, err := f.state.table.find(x.Request.Authority, x.Request.Path)
	switch {
	case err != nil:
		f.answer(400, exchange.OutcomeRefused, err.Error())
	case r == nil:
		f.answer(404, exchange.OutcomeNoRoute, "no route for this host and path")
	default:
		x.Route, x.Pool = r.pattern, r.pool.name
		f.prepare(hop)
		f.send(ctx, r)
	}
}

// prepare makes the request what the origin is to get.
func (f *forward) prepare(hop exchange.Hop) {
	x := f.x
	request := &x.Request
	request.AcceptsTrailers = hop.Trailers
	// Only WebSocket is switched to. An upgrade to h2c, say, would carry
	// requests past the routes.
	if request.Protocol == exchange.HTTP11 && request.Body == nil && strings.EqualFold(hop.Upgrade, "websocket") {
		request.Upgrade = "websocket"
	}
	peer := x.Conn.Client.Addr()
	x.ID = request.Fields.Identify(exchange.Identity{
		Peer:      peer,
		Trusted:   slices.ContainsFunc(f.codec.config.TrustedHops, func(p netip.Prefix) bool { return p.Contains(peer) }),
		Protocol:  request.Protocol,
		Scheme:    x.Conn.Scheme(),
		Authority: request.Authority,
		Port:      x.Conn.Local.Port(),
		ID:        x.ID,
	})
}

// send tries backends until one answers, and passes its response on.
func (f *forward) send(ctx context.Context, r *route) {
	x := f.x
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(r.timeout, errHead, cancel)
	defer w.pause()
	if x.Request.Body != nil {
		f.upload = &upload{body: x.Request.Body, watch: w}
		x.Request.Body = f.upload
	}

	var tried [maxTries]netip.AddrPort
	for x.Tries < maxTries {
		pick, err := r.pool.pool.Pick(tried[:x.Tries])
		if err != nil {
			break
		}
		x.Backend = pick.Backend().Address
		tried[x.Tries] = x.Backend
		x.Tries++
		res, err := r.pool.back.RoundTrip(ctx, x.Backend, &x.Request, f.inform)
		if err == nil {
			w.pause()
			x.Head = time.Since(x.Start)
			w.next(f.codec.config.Timeouts.BodyIdle.Std(), errBody)
			f.worker.metrics.head.WithLabelValues(x.Pool).Observe(x.Head.Seconds())
			f.respond(ctx, pick, res, w)
			return
		}
		if again := f.failed(ctx, pick, err); !again {
			return
		}
	}
	if x.Tries == 0 {
		f.answer(503, exchange.OutcomeNoBackend, "no backend is usable")
		return
	}
	f.answer(502, exchange.OutcomeConnectFailed, "no backend could be connected to")
}

// failed handles a try that brought no response. It returns whether another
// backend may be tried, otherwise the exchange is answered.
func (f *forward) failed(ctx context.Context, pick *origin.Pick, err error) (again bool) {
	result, blame := tryFailed, err
	defer func() {
		pick.Done(blame)
		f.worker.metrics.tries.WithLabelValues(f.x.Pool, result).Inc()
	}()
	if f.upload != nil && ctx.Err() != nil {
		// A codec that gives up on a body may end ctx before we are told why.
		f.upload.Close()
	}
	switch uploadErr := f.upload.failure(); {
	case gaveUp(ctx):
		result = tryTimeout
		f.answer(504, exchange.OutcomeOriginTimeout, "the origin did not answer in time")
	case isTimeout(uploadErr):
		result, blame = tryCanceled, nil
		f.answer(408, exchange.OutcomeClientTimeout, "the request's body did not come in time")
	case uploadErr != nil || ctx.Err() != nil:
		result, blame = tryCanceled, nil
		f.x.Outcome = exchange.OutcomeClientGone
	case errors.Is(err, exchange.ErrConnect):
		result = tryConnectFailed
		return true
	default:
		f.answer(502, exchange.OutcomeOriginFailed, "the origin gave no valid answer")
	}
	return false
}

// inform passes an interim response on. Its fields may be dropped freely, so a
// failure is left to the final response to meet.
func (f *forward) inform(status int, fields exchange.Fields) {
	if _, err := fields.TakeHop(); err == nil {
		f.x.Client.Inform(status, fields)
	}
}

// respond passes a response on. The watch is paused.
func (f *forward) respond(ctx context.Context, pick *origin.Pick, res *exchange.Response, w *watch) {
	x := f.x
	var blame error
	result := tryOK
	defer func() {
		if res.Body != nil {
			res.Body.Close()
		}
		pick.Done(blame)
		f.worker.metrics.tries.WithLabelValues(x.Pool, result).Inc()
	}()

	hop, err := res.Fields.TakeHop()
	if res.Tunnel != nil {
		if err == nil && x.Request.Upgrade != "" && strings.EqualFold(hop.Upgrade, x.Request.Upgrade) {
			f.tunnel(ctx, res)
			return
		}
		res.Tunnel.Close()
		err = errors.New("switched to a protocol that it was not asked for")
	}
	if err != nil {
		blame, result = err, tryFailed
		f.answer(502, exchange.OutcomeOriginFailed, "the origin gave no valid answer")
		return
	}

	body := &download{body: res.Body, watch: w, x: x}
	out := *res
	if res.Body != nil {
		out.Body = body
	}
	out.Fields.Set(exchange.RequestID, x.ID)
	out.Last = f.last()
	x.Status = res.Status
	err = x.Client.Respond(&out)
	switch {
	case err == nil:
		x.Outcome = exchange.OutcomeOK
	case body.err != nil && (ctx.Err() == nil || gaveUp(ctx)):
		x.Outcome = exchange.OutcomeOriginAborted
		blame, result = body.err, tryFailed
	default:
		x.Outcome = exchange.OutcomeClientGone
		result = tryCanceled
	}
}

// gaveUp reports whether ctx ended because the origin was too slow.
func gaveUp(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause == errHead || cause == errBody
}

// last reports whether the client is to make no further request on its
// connection.
func (f *forward) last() bool { return f.worker.draining.Load() || f.codec.stale.Load() }

// isProbe reports whether the request is the agent's probe.
func (f *forward) isProbe() bool {
	token := f.x.Request.Fields.Get(ProbeField)
	return token != "" && f.state.probeToken != "" &&
		subtle.ConstantTimeCompare([]byte(token), []byte(f.state.probeToken)) == 1
}

func (f *forward) answerProbe() {
	f.x.Outcome, f.x.Status = exchange.OutcomeProbe, 204
	f.x.Client.Respond(&exchange.Response{Status: 204, Length: -1, Last: f.last(), Fields: exchange.Fields{
		{Name: "Cache-Control", Value: "no-store"},
		{Name: GenerationField, Value: strconv.FormatUint(f.state.generation, 10)},
	}})
}

// answer responds in the worker's own name: what happened, and the ID under
// which the log has more.
func (f *forward) answer(status int, outcome exchange.Outcome, what string) {
	x := f.x
	x.Outcome, x.Status = outcome, status
	text := fmt.Sprintf("%d: %s\nrequest %s\n", status, what, x.ID)
	x.Client.Respond(&exchange.Response{
		Status: status, Length: int64(len(text)), Body: ownBody{strings.NewReader(text)}, Last: f.last(),
		Fields: exchange.Fields{
			{Name: "Content-Type", Value: "text/plain; charset=utf-8"},
			{Name: "Cache-Control", Value: "no-store"},
			{Name: exchange.RequestID, Value: x.ID},
		},
	})
}

// record counts an exchange that is over, and logs its one line.
func (f *forward) record() {
	x, m, name := f.x, f.worker.metrics, f.codec.listener.name
	took := time.Since(x.Start)
	m.requests.WithLabelValues(name, string(x.Request.Protocol), statusClass(x.Status), string(x.Outcome)).Inc()
	m.sent.WithLabelValues(name).Add(float64(x.Sent))
	m.received.WithLabelValues(name).Add(float64(f.upload.received()))
	if x.Outcome == exchange.OutcomeProbe {
		return
	}
	if x.Outcome != exchange.OutcomeUpgraded {
		m.duration.WithLabelValues(name).Observe(took.Seconds())
	}
	if !f.state.logRequests {
		return
	}
	// A query may hold secrets, so it is left out.
	path, _, _ := strings.Cut(x.Request.Path, "?")
	f.worker.log.LogAttrs(context.Background(), slog.LevelInfo, "request",
		slog.String("id", x.ID),
		slog.String("listener", name),
		slog.Any("client", x.Conn.Client),
		slog.String("protocol", string(x.Request.Protocol)),
		slog.String("method", x.Request.Method),
		slog.String("authority", x.Request.Authority),
		slog.String("path", path),
		slog.String("route", x.Route),
		slog.String("pool", x.Pool),
		slog.Any("backend", x.Backend),
		slog.Int("tries", x.Tries),
		slog.Int("status", x.Status),
		slog.String("outcome", string(x.Outcome)),
		slog.Int64("received", f.upload.received()),
		slog.Int64("sent", x.Sent),
		slog.Duration("head", x.Head),
		slog.Duration("took", took),
	)
}

// newID returns a request ID that cannot be guessed.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
