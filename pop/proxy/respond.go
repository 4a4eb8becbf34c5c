package proxy

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"anyedge/pop/proxy/exchange"
)

// inform passes an interim response on. Its fields may be dropped freely, so a
// failure is left to the final response to meet.
func (f *forward) inform(status int, fields exchange.Fields) {
	if _, err := fields.TakeHop(); err == nil {
		f.x.Client.Inform(status, fields)
	}
}

// respond passes a response on, and returns how the try ended.
func (f *forward) respond(ctx context.Context, r *route, res *exchange.Response) (result string, blame error) {
	x := f.x
	defer func() {
		if res.Body != nil {
			res.Body.Close()
		}
	}()

	hop, err := res.Fields.TakeHop()
	if res.Tunnel != nil {
		if r.connect || err == nil && x.Request.Upgrade != "" && strings.EqualFold(hop.Upgrade, x.Request.Upgrade) {
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
	if alt := f.codec.altSvc; alt != "" && x.Request.Protocol != exchange.HTTP3 {
		res.Fields.Set("Alt-Svc", alt) // what the origin may say is about itself
	}
	if r.serverTiming {
		res.Fields.Add("Server-Timing", f.arena.Build(func(b []byte) []byte {
			return strconv.AppendFloat(append(b, "origin;dur="...), float64(x.Head.Microseconds())/1000, 'f', -1, 64)
		}))
	}
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
