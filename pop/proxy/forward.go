package proxy

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"anyedge/pop/proxy/exchange"
)

const (
	// ProbeField carries the agent's token on its probes. With the right one
	// the worker answers by itself, with status 204.
	ProbeField = "Anyedge-Probe"
	// GenerationField tells, on the answer to a probe, which snapshot is in
	// force.
	GenerationField = "Anyedge-Generation"
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

	offered [maxTries]netip.AddrPort // the backends tried; x.Tries of them

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
	count := f.worker.requests.Add(1)
	f.worker.rtts.requested(x.Conn, f.codec.config.TrustedHops)
	if err != nil {
		x.Refusal = exchange.Refusal{Status: 400, Reason: err.Error()}
		f.refuse()
		return
	}
	if f.worker.shedder.refuses() {
		f.shed()
		return
	}
	if !f.worker.gate.pass(ctx, count) {
		f.answer(503, exchange.OutcomeOverloaded, "the memory for requests is spent")
		return
	}
	r, err := f.route()
	switch {
	case err != nil:
		x.Refusal = exchange.Refusal{Status: 400, Reason: err.Error()}
		f.refuse()
	case r == nil && x.Request.Method == "CONNECT":
		// What follows is meant for the tunnel. It must not be read as requests.
		x.Refusal = exchange.Refusal{Status: 501, Reason: "CONNECT is not served here"}
		f.refuse()
	case r == nil:
		f.answer(404, exchange.OutcomeNoRoute, "no route for this host and path")
	default:
		x.Route, x.Pool = r.pattern, r.pool.name
		f.prepare(hop)
		f.send(ctx, r)
	}
}

// route finds the route of the request; nil if there is none.
func (f *forward) route() (*route, error) {
	r := &f.x.Request
	if r.Method == "CONNECT" {
		return f.state.connect.find(r.Authority, "/")
	}
	return f.state.table.find(r.Authority, r.Path)
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
	if request.Early && !request.Fields.Has("Early-Data") {
		request.Fields.Add("Early-Data", "1") // RFC 8470, 5.1
	}
	peer := x.Conn.Client.Addr()
	x.ID = request.Fields.Identify(exchange.Identity{
		Peer:      peer,
		Trusted:   trusted(peer, f.codec.config.TrustedHops),
		Protocol:  request.Protocol,
		Scheme:    x.Conn.Scheme(),
		Authority: request.Authority,
		Port:      x.Conn.Local.Port(),
		ID:        x.ID,
		Arena:     &f.arena,
	})
}

// last reports whether the client is to make no further request on its
// connection.
func (f *forward) last() bool {
	return f.worker.draining.Load() || f.codec.stale.Load() || f.x.Outcome == exchange.OutcomeShed
}

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
// which the log has more. It may carry more fields.
func (f *forward) answer(status int, outcome exchange.Outcome, what string, more ...exchange.Field) {
	x := f.x
	x.Outcome, x.Status = outcome, status
	f.own.text = fmt.Appendf(nil, "%d: %s\nrequest %s\n", status, what, x.ID)
	f.fields = append(f.fields[:0],
		exchange.Field{Name: "Content-Type", Value: "text/plain; charset=utf-8"},
		exchange.Field{Name: "Cache-Control", Value: "no-store"},
		exchange.Field{Name: exchange.RequestID, Value: x.ID},
	)
	f.fields = append(f.fields, more...)
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
