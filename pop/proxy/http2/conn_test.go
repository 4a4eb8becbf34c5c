package http2

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// Errors of a connection end it with their code.
func TestConnectionErrors(t *testing.T) {
	for name, test := range map[string]struct {
		send func(p *peer)
		code h2.ErrCode
	}{
		"padding beyond HEADERS": {func(p *peer) {
			p.framer.WriteRawFrame(h2.FrameHeaders, h2.FlagHeadersPadded|h2.FlagHeadersEndHeaders, 1, []byte{9, 0x82})
		}, h2.ErrCodeProtocol},
		"broken block": {func(p *peer) { p.framer.WriteRawFrame(h2.FrameHeaders, 5, 1, []byte{0xff, 0xff}) }, h2.ErrCodeCompression},
		"frame within a block": {func(p *peer) {
			p.framer.WriteRawFrame(h2.FrameHeaders, 0, 1, nil)
			p.framer.WritePing(false, [8]byte{})
		}, h2.ErrCodeProtocol},
		"large frame":     {func(p *peer) { p.framer.WriteData(1, true, make([]byte, frameSize+1)) }, h2.ErrCodeFrameSize},
		"even stream":     {func(p *peer) { p.request(2, "/", true) }, h2.ErrCodeProtocol},
		"stream 0":        {func(p *peer) { p.request(0, "/", true) }, h2.ErrCodeProtocol},
		"older stream":    {func(p *peer) { p.request(3, "/", true); p.response(3); p.request(1, "/", true) }, h2.ErrCodeProtocol},
		"closed stream":   {func(p *peer) { p.request(3, "/", true); p.response(3); p.request(3, "/", true) }, h2.ErrCodeStreamClosed},
		"idle stream":     {func(p *peer) { p.framer.WriteRSTStream(1, h2.ErrCodeCancel) }, h2.ErrCodeProtocol},
		"window overflow": {func(p *peer) { p.framer.WriteWindowUpdate(0, maxWindow) }, h2.ErrCodeFlowControl},
		"initial window":  {func(p *peer) { p.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 31}) }, h2.ErrCodeFlowControl},
		"connection's window": {func(p *peer) {
			for id := uint32(1); id <= 11; id += 2 {
				p.request(id, "/wait", false)
				for range streamWindow / frameSize {
					p.framer.WriteData(id, false, make([]byte, frameSize))
				}
			}
		}, h2.ErrCodeFlowControl},
		"push": {func(p *peer) {
			p.framer.WritePushPromise(h2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, h2.ErrCodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			checkBuffers(t)
			synctest.Test(t, func(t *testing.T) {
				p := greeted(t, NewFront(config(waiting)))
				test.send(p)
				p.ends(test.code)
			})
		})
	}
}

func TestReset(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 3)
		p := greeted(t, NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
			switch x.Request.Path {
			case "/read":
				_, err := io.Copy(io.Discard, x.Request.Body)
				ends <- err
			case "/write":
				ends <- respond(x, 200, -1, zeros{})
			default:
				<-ctx.Done()
				ends <- ctx.Err()
			}
		})))
		p.request(1, "/read", false)
		p.framer.WriteData(1, false, make([]byte, 100))
		p.request(3, "/write", true)
		p.request(5, "/wait", true)
		synctest.Wait()
		for id := uint32(1); id <= 5; id += 2 {
			p.framer.WriteRSTStream(id, h2.ErrCodeCancel)
			if err := <-ends; err == nil {
				t.Errorf("stream %d went on", id)
			}
		}
	})
}

// More streams than agreed on are refused, in a way that lets the client try
// again.
func TestMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := greeted(t, NewFront(config(waiting)))
		id := uint32(1)
		for range maxStreams {
			p.request(id, "/wait", true)
			id += 2
		}
		p.request(id, "/", true)
		if f := p.expect(h2.FrameRSTStream, id); f.code != h2.ErrCodeRefusedStream {
			t.Errorf("reset with %v", f.code)
		}
		p.framer.WriteRSTStream(1, h2.ErrCodeCancel)
		p.request(id+2, "/", true)
		if status, _ := p.response(id + 2); status != "200" {
			t.Error(status)
		}
	})
}

// Handlers that do not notice a reset count on: no more than the limit run.
func TestMaxHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		running := make(chan struct{}, 2*maxStreams)
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			running <- struct{}{}
			<-release
			respond(x, 200, 0, nil)
		})))
		id := uint32(1)
		for range maxStreams {
			p.request(id, "/", true)
			p.framer.WriteRSTStream(id, h2.ErrCodeCancel)
			id += 2
		}
		p.request(id, "/", true) // is reset before its turn
		p.request(id+2, "/", true)
		p.framer.WriteRSTStream(id, h2.ErrCodeCancel)
		synctest.Wait()
		if n := len(running); n != maxStreams {
			t.Errorf("%d handlers run", n)
		}
		close(release)
		if status, _ := p.response(id + 2); status != "200" {
			t.Error(status)
		}
		if n := len(running); n != maxStreams+1 {
			t.Errorf("%d handlers ran", n)
		}
	})
}
