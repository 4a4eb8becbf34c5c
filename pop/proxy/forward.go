package proxy

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
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

// serve is the handler of the codec's exchanges.
func (c *codec) serve(ctx context.Context, x *exchange.Exchange) {
	w := c.listener.worker
	w.inFlight.Add(1)
	f := forwards.Get().(*forward)
	f.worker, f.state, f.codec, f.x = w, w.state.Load(), c, x
	defer func() {
		if fault := recover(); fault != nil {
			x.Outcome = exchange.OutcomeInternal
			w.log.Error("exchange panicked", "id", x.ID, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
		}
		f.record()
		w.inFlight.Add(-1)
		f.free()
	}()
	f.serve(ctx)
}

var forwards = sync.Pool{New: func() any {
	f := new(forward)
	f.informed = f.inform
	return f
}}

// forward is one exchange on its way.
type forward struct {
	worker *Worker
	state  *state
	codec  *codec
	x      *exchange.Exchange
	upload *upload // the request's body; nil if there is none

	// What follows is kept for the next exchange, so that it need not be made.
	arena    exchange.Arena
	fields   exchange.Fields // of an answer in the worker's own name
	out      exchange.Response
	download download
	own      ownBody
	informed func(int, exchange.Fields) // inform
}

// free makes f ready for another exchange.
func (f *forward) free() {
	f.arena.Reset()
	*f = forward{arena: f.arena, fields: f.fields[:0], informed: f.informed}
	forwards.Put(f)
}

// serve does all of an exchange.
func (f *forward) serve(ctx context.Context) {
	x := f.x
	x.ID = f.arena.Build(appendID)
	if x.Refusal.Status != 0 {
		f.worker.requests.Add(1)
		f.refuse()
		return
	}
	hop, err := x.Request.Fields.TakeHop()
	if f.isProbe() {
		f.answerProbe()
		return
	}
	f.worker.requests.Add(1)
	if err != nil {
		x.Refusal = exchange.Refusal{Status: 400, Reason: err.Error()}
		f.refuse()
		return
	}
	if x.Request.Method == "CONNECT" {
		// What follows is meant for the tunnel. It must not be read as requests.
		x.Refusal = exchange.Refusal{Status: 501, Reason: "CONNECT is not served here"}
		f.refuse()
		return
	}
	r, err := f.state.table.find(x.Request.Authority, x.Request.Path)
	switch {
	case err != nil:
		x.Refusal = exchange.Refusal{Status: 400, Reason: err.Error()}
		f.refuse()
	case r == nil:
		f.answer(404, exchange.OutcomeNoRoute, "no route for this host and path")
	default:
		x.Route, x.Pool = r.pattern, r.pool.name
		f.prepare(hop)
		f.send(ctx, r)
	}
}

// refuse answers a head that the codec does not take for a request.
func (f *forward) refuse() {
	outcome := exchange.OutcomeRefused
	if f.x.Refusal.Status == 408 {
		outcome = exchange.OutcomeClientTimeout
	}
	f.answer(f.x.Refusal.Status, outcome, f.x.Refusal.Reason)
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
		Trusted:   f.codec.trusts(peer),
		Protocol:  request.Protocol,
		Scheme:    x.Conn.Scheme(),
		Authority: request.Authority,
		Port:      x.Conn.Local.Port(),
		ID:        x.ID,
		Arena:     &f.arena,
	})
}

// send tries backends until one answers, and passes its response on.
func (f *forward) send(ctx context.Context, r *route) {
	x := f.x
	x.Request.HeadWait, x.Request.BodyWait = r.timeout, f.codec.config.Timeouts.BodyIdle.Std()
	if x.Request.Body != nil {
		f.upload = &upload{body: x.Request.Body}
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
		res, err := r.pool.back.RoundTrip(ctx, x.Backend, &x.Request, f.informed)
		if err == nil {
			x.Head = time.Since(x.Start)
			r.pool.head.Observe(x.Head.Seconds())
			result, blame := f.respond(ctx, res)
			f.tried(r.pool, pick, result, blame)
			return
		}
		result, blame := f.failed(ctx, err)
		f.tried(r.pool, pick, result, blame)
		if result != tryConnectFailed {
			return
		}
	}
	if x.Tries == 0 {
		f.answer(503, exchange.OutcomeNoBackend, "no backend is usable")
		return
	}
	f.answer(502, exchange.OutcomeConnectFailed, "no backend could be connected to")
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

// failed handles a try that brought no response. If the result is
// tryConnectFailed another backend may be tried, otherwise the exchange is
// answered. blame is the error that the backend is to blame for.
func (f *forward) failed(ctx context.Context, err error) (result string, blame error) {
	if f.upload != nil && ctx.Err() != nil {
		// A codec that gives up on a body may end ctx before we are told why.
		f.upload.Close()
	}
	switch uploadErr := f.upload.failure(); {
	case errors.Is(err, exchange.ErrSlow):
		f.answer(504, exchange.OutcomeOriginTimeout, "the origin did not answer in time")
		return tryTimeout, err
	case isTimeout(uploadErr):
		f.answer(408, exchange.OutcomeClientTimeout, "the request's body did not come in time")
		return tryCanceled, nil
	case f.upload.malformed():
		f.answer(400, exchange.OutcomeRefused, "the request's body is malformed")
		return tryCanceled, nil
	case uploadErr != nil || ctx.Err() != nil:
		f.x.Outcome = exchange.OutcomeClientGone
		return tryCanceled, nil
	case errors.Is(err, exchange.ErrConnect):
		return tryConnectFailed, err
	}
	f.answer(502, exchange.OutcomeOriginFailed, "the origin gave no valid answer")
	return tryFailed, err
}

// inform passes an interim response on. Its fields may be dropped freely, so a
// failure is left to the final response to meet.
func (f *forward) inform(status int, fields exchange.Fields) {
	if _, err := fields.TakeHop(); err == nil {
		f.x.Client.Inform(status, fields)
	}
}

// respond passes a response on, and returns how the try ended.
func (f *forward) respond(ctx context.Context, res *exchange.Response) (result string, blame error) {
	x := f.x
	defer func() {
		if res.Body != nil {
			res.Body.Close()
		}
	}()

	hop, err := res.Fields.TakeHop()
	if res.Tunnel != nil {
		if err == nil && x.Request.Upgrade != "" && strings.EqualFold(hop.Upgrade, x.Request.Upgrade) {
			f.tunnel(ctx, res)
			return tryOK, nil
		}
		res.Tunnel.Close()
		err = errors.New("switched to a protocol that it was not asked for")
	}
	if err != nil {
		f.answer(502, exchange.OutcomeOriginFailed, "the origin gave no valid answer")
		return tryFailed, err
	}

	res.Fields.Set(exchange.RequestID, x.ID)
	f.out = *res
	out, body := &f.out, &f.download
	*body = download{body: res.Body, x: x}
	out.Body = nil
	if res.Body != nil && x.Request.Method != "HEAD" && res.Status != 204 && res.Status != 304 {
		out.Body = body
	}
	out.Last = f.last()
	x.Status = res.Status
	err = x.Client.Respond(out)
	switch {
	case err == nil:
		x.Outcome = exchange.OutcomeOK
		return tryOK, nil
	case body.err != nil && (ctx.Err() == nil || errors.Is(body.err, exchange.ErrSlow)):
		x.Outcome = exchange.OutcomeOriginAborted
		return tryFailed, body.err
	}
	x.Outcome = exchange.OutcomeClientGone
	return tryCanceled, nil
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
	f.own.text = fmt.Appendf(nil, "%d: %s\nrequest %s\n", status, what, x.ID)
	f.fields = append(f.fields[:0],
		exchange.Field{Name: "Content-Type", Value: "text/plain; charset=utf-8"},
		exchange.Field{Name: "Cache-Control", Value: "no-store"},
		exchange.Field{Name: exchange.RequestID, Value: x.ID},
	)
	f.out = exchange.Response{
		Status: status, Fields: f.fields, Length: int64(len(f.own.text)), Body: &f.own, Ready: int64(len(f.own.text)), Last: f.last(),
	}
	x.Client.Respond(&f.out)
}

// record counts an exchange that is over, and logs its one line.
func (f *forward) record() {
	x, m, name := f.x, f.codec.metrics, f.codec.listener.name
	took := time.Since(x.Start)
	m.request(x).Inc()
	m.sent.Add(float64(x.Sent))
	if f.upload != nil {
		m.received.Add(float64(f.upload.received()))
	}
	if x.Outcome == exchange.OutcomeProbe {
		return
	}
	if x.Outcome != exchange.OutcomeUpgraded {
		m.duration.Observe(took.Seconds())
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

// appendID appends a request ID that cannot be guessed: 128 bits of the
// runtime's generator (ChaCha8).
func appendID(b []byte) []byte {
	var id [16]byte
	binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	return hex.AppendEncode(b, id[:])
}
