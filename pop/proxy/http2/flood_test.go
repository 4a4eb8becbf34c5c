package http2

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

func TestFloods(t *testing.T) {
	untilEnd := func(send func(p *peer, id uint32) error) func(*peer) {
		return func(p *peer) {
			for id := uint32(1); id < 20000; id += 2 {
				if send(p, id) != nil {
					return
				}
			}
		}
	}
	for name, test := range map[string]struct {
		flood Flood
		send  func(*peer)
	}{
		"rapid reset": {FloodReset, untilEnd(func(p *peer, id uint32) error {
			p.request(id, "/", true)
			return p.framer.WriteRSTStream(id, h2.ErrCodeCancel)
		})},
		"resets provoked by window overflow": {FloodReset, untilEnd(func(p *peer, id uint32) error {
			p.request(id, "/wait", true)
			return p.framer.WriteWindowUpdate(id, maxWindow)
		})},
		"resets provoked by empty updates": {FloodReset, untilEnd(func(p *peer, id uint32) error {
			p.request(id, "/wait", true)
			return p.framer.WriteWindowUpdate(id, 0)
		})},
		"malformed requests": {FloodReset, untilEnd(func(p *peer, id uint32) error {
			p.raw(id, true, "x", "y")
			return p.framer.WriteRSTStream(id, h2.ErrCodeCancel)
		})},
		"trailers on reset streams": {FloodIgnored, func(p *peer) {
			p.raw(1, true, "x", "y")
			untilEnd(func(p *peer, _ uint32) error {
				p.raw(1, true, "a", "b")
				return p.framer.WriteData(1, false, []byte("x"))
			})(p)
		}},
		"settings": {FloodSettings, untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteSettings() })},
		"many settings": {FloodSettings, func(p *peer) {
			p.framer.WriteSettings(make([]h2.Setting, maxSettings+1)...)
		}},
		"settings acknowledgments": {FloodIgnored, untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteSettingsAck() })},
		"ping":                     {FloodPing, untilEnd(func(p *peer, _ uint32) error { return p.framer.WritePing(false, [8]byte{}) })},
		"ping acknowledgments":     {FloodIgnored, untilEnd(func(p *peer, _ uint32) error { return p.framer.WritePing(true, [8]byte{}) })},
		"empty data": {FloodEmpty, func(p *peer) {
			p.request(1, "/wait", false)
			untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteData(1, false, nil) })(p)
		}},
		"padding only": {FloodEmpty, func(p *peer) {
			p.request(1, "/wait", false)
			untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteDataPadded(1, false, nil, make([]byte, 9)) })(p)
		}},
		"window updates": {FloodWindow, untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteWindowUpdate(0, 1) })},
		"priority": {FloodIgnored, untilEnd(func(p *peer, id uint32) error {
			return p.framer.WritePriority(id, h2.PriorityParam{StreamDep: id + 2})
		})},
		"unknown frames": {FloodIgnored, untilEnd(func(p *peer, _ uint32) error {
			return p.framer.WriteRawFrame(0xfa, 0, 0, nil)
		})},
		"goaway": {FloodIgnored, untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteGoAway(0, 0, nil) })},
		"many continuations": {FloodContinuation, func(p *peer) {
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: p.headers(":method", "GET")})
			untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteContinuation(1, false, p.headers("a", "b")) })(p)
		}},
		"large continuations": {FloodContinuation, func(p *peer) {
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: p.headers(":method", "GET")})
			update := strings.Repeat("\x20", frameSize) // table size updates have no effect on the list
			untilEnd(func(p *peer, _ uint32) error { return p.framer.WriteContinuation(1, false, []byte(update)) })(p)
		}},
		"hpack bomb": {FloodHeaders, func(p *peer) {
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, EndHeaders: true,
				BlockFragment: p.headers("bomb", strings.Repeat("x", 3900))})
			block := strings.Repeat("\xbe", frameSize) // the table's first entry
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte(block)})
		}},
		"long string": {FloodHeaders, func(p *peer) {
			block := append([]byte{0, 1, 'a'}, appendInt(nil, 0, 7, 1<<20)...)
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			checkBuffers(t)
			synctest.Test(t, func(t *testing.T) {
				c := config(waiting)
				p := greeted(t, NewFront(c))
				test.send(p)
				p.ends(h2.ErrCodeEnhanceYourCalm)
				for _, a := range [...]Flood{FloodReset, FloodSettings, FloodPing, FloodEmpty, FloodWindow, FloodIgnored, FloodContinuation, FloodHeaders, FloodStall} {
					want := 0.0
					if a == test.flood {
						want = 1
					}
					if got := testutil.ToFloat64(c.Metrics.floods.WithLabelValues(string(a))); got != want {
						t.Errorf("%s counted %v times, want %v", a, got, want)
					}
				}
			})
		})
	}
}

// waiting is testServer, but on /wait it waits for the exchange's end.
func waiting(ctx context.Context, x *exchange.Exchange) {
	if x.Request.Path == "/wait" {
		<-ctx.Done()
		return
	}
	testServer(ctx, x)
}

// Streams whose responses nobody takes are given up, and a client that goes on
// asking for them is cut off.
func TestFloodStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(waiting)
		p := greeted(t, NewFront(c), h2.Setting{ID: h2.SettingInitialWindowSize, Val: 10})
		for id := uint32(1); id <= 2*9; id += 2 {
			p.request(id, "/bytes?100", true)
			for range 20 { // a byte now and then is not enough
				time.Sleep(patience / 30)
				p.framer.WriteWindowUpdate(id, 1)
			}
		}
		p.ends(h2.ErrCodeEnhanceYourCalm)
		if got := testutil.ToFloat64(c.Metrics.floods.WithLabelValues(string(FloodStall))); got != 1 {
			t.Errorf("counted %v times, want 1", got)
		}
	})
}

// What honest clients do is no flood.
func TestNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := greeted(t, NewFront(config(waiting)))
		id := uint32(1)
		for range 2000 { // one in three is canceled
			p.request(id, "/bytes?10", true)
			if status, _ := p.response(id); status != "200" {
				t.Fatal(status)
			}
			p.request(id+2, "/bytes?10", true)
			p.response(id + 2)
			p.framer.WriteWindowUpdate(0, 10)
			p.request(id+4, "/wait", true)
			p.framer.WriteRSTStream(id+4, h2.ErrCodeCancel)
			id += 6
		}
		for range 500 { // windows are opened for each 2 KiB, in the middle
			p.request(id, "/bytes?32768", true)
			p.expect(h2.FrameData, id)
			for range 8 {
				p.framer.WriteWindowUpdate(0, 2048)
				p.framer.WriteWindowUpdate(id, 2048)
			}
			p.expect(h2.FrameData, id)
			p.framer.WriteWindowUpdate(0, 16384)
			id += 2
		}
		for range 3000 { // a ping for each round trip of 20 ms
			p.framer.WritePing(false, [8]byte{})
			p.expect(h2.FramePing, 0)
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// A client that was sent a whole window before it read any of it may open it
// again bit by bit.
func TestNoFloodAfterALargeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 4 << 20
		p := greeted(t, NewFront(config(waiting)), h2.Setting{ID: h2.SettingInitialWindowSize, Val: size})
		p.framer.WriteWindowUpdate(0, size)
		p.request(1, "/bytes?"+strconv.Itoa(size), true)
		if _, body := p.response(1); len(body) != size {
			t.Fatalf("%d bytes came", len(body))
		}
		for range size / 2048 {
			p.framer.WriteWindowUpdate(0, 2048)
		}
		p.framer.WritePing(false, [8]byte{})
		p.expect(h2.FramePing, 0)
	})
}
