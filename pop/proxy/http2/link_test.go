package http2

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// A request that an origin did not process is sent once more; what it may have
// processed only if that does no harm.
func TestBackRetries(t *testing.T) {
	refuse := func(p *peer, id uint32) { p.framer.WriteRSTStream(id, h2.ErrCodeRefusedStream) }
	goAway := func(p *peer, id uint32) { p.framer.WriteGoAway(id-2, h2.ErrCodeNo, nil) }
	hangUp := func(p *peer, _ uint32) { p.nc.Close() }
	body := func() *exchange.Request { r := newPost(wholeBody("body"), 4); r.Ready = 4; return r }
	expecting := func() *exchange.Request {
		r := newPost(wholeBody("body"), 4)
		r.Fields.Add("Expect", "100-continue")
		return r
	}
	put := func() *exchange.Request { r := newGet(); r.Method = "PUT"; return r }
	post := func() *exchange.Request { r := newGet(); r.Method = "POST"; return r }
	for name, test := range map[string]struct {
		request func() *exchange.Request
		fresh   bool // the connection has served nothing before
		first   func(p *peer, id uint32)
		err     error // nil if it is sent once more
	}{
		"refused":                      {newGet, false, refuse, nil},
		"refused, fresh":               {newGet, true, refuse, nil},
		"refused POST":                 {post, false, refuse, nil},
		"refused body":                 {body, false, refuse, exchange.ErrRefused},
		"refused body, not touched":    {expecting, false, refuse, nil},
		"going away":                   {newGet, false, goAway, nil},
		"going away, POST":             {post, false, goAway, nil},
		"going away, body":             {body, false, goAway, exchange.ErrRefused},
		"going away, not touched":      {expecting, false, goAway, nil},
		"hung up":                      {newGet, false, hangUp, nil},
		"hung up, PUT":                 {put, false, hangUp, nil},
		"hung up, fresh":               {newGet, true, hangUp, exchange.ErrUnanswered},
		"hung up, POST":                {post, false, hangUp, exchange.ErrUnanswered},
		"hung up, body":                {body, false, hangUp, exchange.ErrUnanswered},
		"reset for other reasons":      {newGet, false, func(p *peer, id uint32) { p.framer.WriteRSTStream(id, h2.ErrCodeInternal) }, errAny},
		"hung up after an interim one": {newGet, false, func(p *peer, id uint32) { p.raw(id, false, ":status", "103"); p.nc.Close() }, errAny},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				var p *peer
				id := uint32(1)
				if !test.fresh {
					p, id = o.established(), 3
				}
				got := o.send(t.Context(), test.request())
				if test.fresh {
					p = o.greet()
				}
				p.expect(h2.FrameHeaders, id)
				test.first(p, id)
				if test.err != nil {
					err := o.fails(got, nil)
					if !errors.Is(err, test.err) && test.err != errAny || test.err == errAny && (errors.Is(err, exchange.ErrRefused) || errors.Is(err, exchange.ErrUnanswered)) {
						t.Errorf("error %v, want %v", err, test.err)
					}
					return
				}
				again := id + 2 // there is no other connection
				select {
				case f, open := <-p.frames:
					for ; open && f.Type != h2.FrameHeaders; f, open = <-p.frames {
					}
					if open {
						break
					}
					p, again = o.greet(), 1
					p.expect(h2.FrameHeaders, 1)
				case q := <-o.peers:
					p, again = q, 1
					p.framer.WriteSettings()
					p.expect(h2.FrameHeaders, 1)
				}
				p.raw(again, true, ":status", "200")
				o.ok(got, 200, "")
			})
		})
	}
}

var errAny = errors.New("any error")

// Once is enough.
func TestBackRetriesOnce(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		got := o.get()
		p := o.greet()
		for id := uint32(1); id <= 3; id += 2 {
			p.expect(h2.FrameHeaders, id)
			p.framer.WriteRSTStream(id, h2.ErrCodeRefusedStream)
		}
		o.fails(got, exchange.ErrRefused)
	})
}

// After a GOAWAY the streams that the origin serves go on, and new requests go
// elsewhere.
func TestBackGoAway(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		p := o.established()
		served := o.get()
		p.expect(h2.FrameHeaders, 3)
		p.raw(3, false, ":status", "200")
		r := <-served
		p.framer.WriteGoAway(3, h2.ErrCodeNo, nil)
		q := o.established()
		p.framer.WriteData(3, true, []byte("late"))
		if b, err := io.ReadAll(r.res.Body); string(b) != "late" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		r.res.Body.Close()
		p.expect(h2.FrameGoAway, 0)
		if _, open := <-p.frames; open {
			t.Error("the connection goes on")
		}
		got := o.get()
		q.expect(h2.FrameHeaders, 3)
		q.raw(3, true, ":status", "200")
		o.ok(got, 200, "")
	})
}

// Connections are dialed as needed and no more, and the least loaded is taken.
func TestBackConnections(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		const bound, requests = 10, maxLinks*10 + 20
		var got []chan result
		for range requests {
			got = append(got, o.get())
		}
		synctest.Wait()
		if o.dials != 1 { // as many may share one, as far as is known
			t.Errorf("%d dials", o.dials)
		}
		var peers []*peer
		for range maxLinks {
			peers = append(peers, o.greet(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: bound}))
		}
		synctest.Wait()
		if o.dials != maxLinks {
			t.Errorf("%d dials", o.dials)
		}
		for _, p := range peers {
			for id := uint32(1); id < 2*bound; id += 2 {
				p.expect(h2.FrameHeaders, id)
			}
			if len(p.frames) > 0 {
				t.Error("too many requests on one connection")
			}
		}
		for _, p := range peers {
			for id := uint32(1); id < 2*bound; id += 2 {
				p.raw(id, true, ":status", "200")
			}
			synctest.Wait()
		}
		// The rest got the first streams that came free.
		p := peers[0]
		for id := uint32(2*bound + 1); id < 4*bound; id += 2 {
			p.expect(h2.FrameHeaders, id)
			p.raw(id, true, ":status", "200")
		}
		p = peers[1]
		for id := uint32(2*bound + 1); id < 4*bound; id += 2 {
			p.expect(h2.FrameHeaders, id)
			p.raw(id, true, ":status", "200")
		}
		for _, g := range got {
			o.ok(g, 200, "")
		}
		// Each is the least loaded now.
		got = nil
		for range maxLinks {
			got = append(got, o.get())
			synctest.Wait()
		}
		for i, p := range peers {
			id := uint32(2*bound + 1)
			if i < 2 {
				id = 4*bound + 1
			}
			p.expect(h2.FrameHeaders, id)
			p.raw(id, true, ":status", "200")
		}
		for _, g := range got {
			o.ok(g, 200, "")
		}
	})
}

// Requests wait for a stream no longer than they may.
func TestBackWaits(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		one := h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 1}
		busy := make([]chan result, maxLinks)
		peers := make([]*peer, maxLinks)
		for i := range busy {
			busy[i] = o.get()
			peers[i] = o.greet(one)
			peers[i].expect(h2.FrameHeaders, 1)
		}
		r := newGet()
		r.HeadWait = time.Second
		o.fails(o.send(t.Context(), r), exchange.ErrSlow)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := o.fails(o.send(ctx, newGet()), exchange.ErrConnect); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// Those who gave up take no stream from who waits on.
		got := o.get()
		synctest.Wait()
		peers[3].raw(1, true, ":status", "200")
		peers[3].expect(h2.FrameHeaders, 3)
		peers[3].raw(3, true, ":status", "200")
		o.ok(got, 200, "")
		for i, p := range peers {
			if i != 3 {
				p.raw(1, true, ":status", "200")
			}
			o.ok(busy[i], 200, "")
		}
	})
}

func TestBackDialFails(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		o.fail = net.ErrClosed
		if err := o.fails(o.get(), exchange.ErrConnect); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		o.fail = nil
		got := o.get()
		p := <-o.peers
		p.nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		o.fails(got, exchange.ErrConnect)
		got = o.get() // silence
		<-o.peers
		start := time.Now()
		o.fails(got, exchange.ErrConnect)
		if took := time.Since(start); took < frameWait || took > frameWait+linger {
			t.Errorf("gave up after %v", took)
		}
		o.established()
	})
}

// CloseIdle leaves requests alone that are under way.
func TestBackCloseIdle(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		busy := o.established()
		got := o.get()
		busy.expect(h2.FrameHeaders, 3)
		o.back.CloseIdle()
		idle := o.established()
		o.back.CloseIdle()
		idle.expect(h2.FrameGoAway, 0)
		coming := o.get()
		synctest.Wait()
		o.back.CloseIdle() // before it was greeted
		stale := o.greet()
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		p.raw(1, true, ":status", "200")
		o.ok(coming, 200, "")
		stale.expect(h2.FrameGoAway, 0)
		busy.raw(3, true, ":status", "200")
		o.ok(got, 200, "")
		busy.expect(h2.FrameGoAway, 0)
	})
}

func TestBackAdopt(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		var peers []*peer
		for range maxLinks {
			nc, _ := o.dial(t.Context(), testOrigin)
			o.back.Adopt(testOrigin, nc)
			peers = append(peers, o.greet())
		}
		nc, _ := o.dial(t.Context(), testOrigin)
		o.back.Adopt(testOrigin, nc)
		if _, err := nc.Write(nil); err == nil {
			t.Error("one connection too many was kept")
		}
		o.dials = 0
		got := o.get()
		peers[0].expect(h2.FrameHeaders, 1)
		peers[0].raw(1, true, ":status", "200")
		o.ok(got, 200, "")
		if o.dials > 0 {
			t.Error("an adopted connection was not used")
		}
	})
}

// Run ends when the last response has, and there are no requests afterwards.
func TestBackRun(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		o := newOrigins(t)
		o.back = NewBack(o.back.config)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() {
			defer close(ran)
			o.back.Run(ctx)
		}()
		p := o.established()
		got := o.get()
		p.expect(h2.FrameHeaders, 3)
		dialing := o.send(t.Context(), newGet())
		p.expect(h2.FrameHeaders, 5)
		cancel()
		synctest.Wait()
		select {
		case <-ran:
			t.Error("Run has returned before the last response")
		default:
		}
		o.fails(o.get(), exchange.ErrConnect)
		p.raw(3, true, ":status", "200")
		p.raw(5, true, ":status", "200")
		o.ok(got, 200, "")
		o.ok(dialing, 200, "")
		<-ran
		nc, _ := o.dial(t.Context(), testOrigin)
		o.back.Adopt(testOrigin, nc)
		if _, err := nc.Write(nil); err == nil {
			t.Error("a connection was adopted")
		}
	})
}

// Idle connections are asked for a sign of life now and then, and closed before
// the origin does so.
func TestBackIdle(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		p := o.established()
		start := time.Now()
		for range 2 {
			f := p.expect(h2.FramePing, 0)
			p.framer.WritePing(true, [8]byte(f.payload))
		}
		p.expect(h2.FrameGoAway, 0)
		if took := time.Since(start); took < linkIdle || took > linkIdle+time.Second {
			t.Errorf("closed after %v", took)
		}
		p = o.established()
		start = time.Now()
		p.expect(h2.FramePing, 0)
		for range p.frames {
		}
		if took := time.Since(start); took < idlePing+pingWait || took > idlePing+pingWait+time.Second {
			t.Errorf("dead after %v", took)
		}
		o.established()
	})
}

// A connection on which a request was given up, and nothing else came, has to
// prove that it lives.
func TestBackDoubt(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		p := o.established()
		slow := newGet()
		slow.HeadWait = 2 * time.Second
		other := newGet()
		other.Method = "POST"
		o1, o2 := o.send(t.Context(), slow), o.send(t.Context(), other)
		o.fails(o1, exchange.ErrSlow)
		f := p.expect(h2.FramePing, 0)
		p.framer.WritePing(true, [8]byte(f.payload))
		o.fails(o.send(t.Context(), slow), exchange.ErrSlow)
		p.expect(h2.FramePing, 0) // stays unanswered
		start := time.Now()
		o.fails(o2, exchange.ErrUnanswered)
		if took := time.Since(start); took > pingWait+time.Second {
			t.Errorf("dead after %v", took)
		}
	})
}

// An origin that has closed the stream of an upload may reset it once more for
// each frame that was on its way.
func TestBackLateResets(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		const frames = 2000
		body, client := newClientBody()
		got := o.send(t.Context(), newPost(body, -1))
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		for range frames {
			client.Write([]byte("x"))
			p.expect(h2.FrameData, 1)
		}
		p.raw(1, true, ":status", "403")
		o.ok(got, 403, "")
		for range frames {
			p.framer.WriteRSTStream(1, h2.ErrCodeStreamClosed)
		}
		for range frames {
			p.framer.WritePing(false, [8]byte{})
			p.expect(h2.FramePing, 0)
		}
		got = o.get()
		p.expect(h2.FrameHeaders, 3)
		p.raw(3, true, ":status", "200")
		o.ok(got, 200, "")
		client.Close()
	})
}
