package http2

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// A response is taken only as fast as it is read; a reader that keeps up gets a
// larger window, and one that does not holds up no other.
func TestBackDownload(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		slow := o.get()
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		piece := make([]byte, frameSize)
		fill := func(id uint32, n int) {
			for ; n > 0; n -= len(piece) {
				p.framer.WriteData(id, false, piece[:min(n, len(piece))])
			}
		}
		p.raw(1, false, ":status", "200")
		fill(1, linkStreamWindow)
		held := (<-slow).res
		synctest.Wait()
		if n := buffers.Lent(); n < linkStreamWindow || n > linkStreamWindow+2*frameSize {
			t.Errorf("%d bytes are held", n)
		}
		window := linkStreamWindow
		got := o.get()
		p.expect(h2.FrameHeaders, 3)
		p.raw(3, false, ":status", "200")
		r := (<-got).res
		for range 200 {
			fill(3, window)
			synctest.Wait()
			if n, err := io.CopyN(io.Discard, r.Body, int64(window)); err != nil {
				t.Fatal(n, err)
			}
			window = 0
			for len(p.frames) > 0 {
				if f := <-p.frames; f.Type == h2.FrameWindowUpdate && f.StreamID == 3 {
					window += int(f.number)
				}
			}
		}
		if window < maxStreamWindow/2 {
			t.Errorf("window for a reader that keeps up: %d", window)
		}
		p.framer.WriteData(3, true, nil)
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
		held.Body.Close()
		if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeCancel {
			t.Errorf("reset with %v", f.code)
		}
	})
}

// A request's body is sent only as the windows permit, and taken from the client
// only as it is sent.
func TestBackUpload(t *testing.T) {
	for name, ready := range map[string]int64{"stream": 0, "at hand": 10000} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				const size = 10000
				body := io.NopCloser(strings.NewReader(strings.Repeat("x", size)))
				r := newPost(body, size)
				r.Ready = ready
				got := o.send(t.Context(), r)
				p := o.greet(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 10})
				p.expect(h2.FrameHeaders, 1)
				left := size
				for step := 10; left > 0; step = min(2*step, left) {
					for n := 0; n < step; {
						f := p.expect(h2.FrameData, 1)
						n += len(f.payload)
						left -= len(f.payload)
						if n > step || f.Flags.Has(h2.FlagDataEndStream) != (left == 0) {
							t.Fatalf("%d bytes beyond the window, %d left, %v", n-step, left, f)
						}
					}
					synctest.Wait()
					if len(p.frames) > 0 {
						t.Fatal("frames beyond the window")
					}
					if left > 0 {
						p.framer.WriteWindowUpdate(1, uint32(min(2*step, left)))
					}
				}
				p.raw(1, true, ":status", "200")
				o.ok(got, 200, "")
			})
		})
	}
	// With all windows closed the client's body waits.
	bubble(t, func(t *testing.T, o *origins) {
		body, client := newClientBody()
		got := o.send(t.Context(), newPost(body, -1))
		p := o.greet()
		taken := 0
		go func() {
			for {
				n, err := client.Write(make([]byte, 1000))
				if taken += n; err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if taken < defaultWindow || taken > defaultWindow+2*pieceSize {
			t.Errorf("%d bytes were taken", taken)
		}
		// The origin does without the rest (RFC 9113, 8.1).
		p.raw(1, false, ":status", "200")
		p.framer.WriteData(1, true, []byte("enough"))
		p.framer.WriteRSTStream(1, h2.ErrCodeNo)
		o.ok(got, 200, "enough")
		<-body.closed
	})
}

// A response that is complete before the request ends it.
func TestBackEarlyResponse(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		body, client := newClientBody()
		defer client.Close()
		got := o.send(t.Context(), newPost(body, -1))
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		p.raw(1, true, ":status", "403")
		o.ok(got, 403, "")
		<-body.closed
		if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeCancel {
			t.Errorf("reset with %v", f.code)
		}
	})
}

// Both directions are open at once.
func TestBackBidirectional(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		body, client := newClientBody()
		trailers := exchange.Fields{{Name: "X-Sum"}}
		r := newPost(body, -1)
		r.Trailers = &trailers
		got := o.send(t.Context(), r)
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		p.raw(1, false, ":status", "200")
		res := (<-got).res
		for _, message := range []string{"one", "two", "three"} {
			client.Write([]byte(message))
			f := p.expect(h2.FrameData, 1)
			p.framer.WriteData(1, false, f.payload)
			b := make([]byte, 10)
			if n, err := res.Body.Read(b); string(b[:n]) != message || err != nil {
				t.Errorf("%q, %v", b[:n], err)
			}
		}
		trailers[0].Value = "7"
		client.Close()
		if f := p.expect(h2.FrameHeaders, 1); f.fields["x-sum"] != "7" || !f.Flags.Has(h2.FlagHeadersEndStream) {
			t.Errorf("trailers %v", f)
		}
		p.raw(1, true, "grpc-status", "0")
		if b, err := io.ReadAll(res.Body); len(b) > 0 || err != nil || res.Trailers.Get("grpc-status") != "0" {
			t.Errorf("%q, %v, %v", b, err, res.Trailers)
		}
		res.Body.Close()
	})
}

// A response that breaks off is not taken for complete.
func TestBackHalfResponses(t *testing.T) {
	for name, breakOff := range map[string]func(p *peer){
		"reset":      func(p *peer) { p.framer.WriteRSTStream(1, h2.ErrCodeInternal) },
		"no error":   func(p *peer) { p.framer.WriteRSTStream(1, h2.ErrCodeNo) },
		"connection": func(p *peer) { p.nc.Close() },
		"refused":    func(p *peer) { p.framer.WriteGoAway(0, h2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				got := o.get()
				p := o.greet()
				p.expect(h2.FrameHeaders, 1)
				p.raw(1, false, ":status", "200")
				p.framer.WriteData(1, false, []byte("half"))
				r := <-got
				synctest.Wait()
				breakOff(p)
				synctest.Wait()
				if b, err := io.ReadAll(r.res.Body); err == nil {
					t.Errorf("%q passed for complete", b)
				}
				r.res.Body.Close()
			})
		})
	}
}

func TestBackClose(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		body, client := newClientBody()
		defer client.Close()
		got := o.send(t.Context(), newPost(body, -1))
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		p.raw(1, false, ":status", "200")
		p.framer.WriteData(1, false, []byte("not read"))
		r := <-got
		r.res.Body.Close()
		<-body.closed
		if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeCancel {
			t.Errorf("reset with %v", f.code)
		}
	})
}

func newWebSocket() *exchange.Request {
	r := newGet()
	r.Path, r.Upgrade = "/chat", "websocket"
	r.Fields = exchange.Fields{
		{Name: "Sec-WebSocket-Key", Value: "dGhlIHNhbXBsZSBub25jZQ=="}, {Name: "Sec-WebSocket-Version", Value: "13"},
	}
	return r
}

func TestBackWebSocket(t *testing.T) {
	connects := h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1}
	bubble(t, func(t *testing.T, o *origins) {
		ctx, cancel := context.WithCancel(t.Context())
		got := o.send(ctx, newWebSocket())
		p := o.greet(connects)
		head := p.expect(h2.FrameHeaders, 1)
		for name, want := range map[string]string{
			":method": "CONNECT", ":protocol": "websocket", ":path": "/chat", ":scheme": "http", ":authority": "a.example",
			"sec-websocket-version": "13", "sec-websocket-key": "", "upgrade": "", "connection": "",
		} {
			if head.fields[name] != want {
				t.Errorf("%s: %q, want %q", name, head.fields[name], want)
			}
		}
		p.raw(1, false, ":status", "200", "sec-websocket-protocol", "chat", "sec-websocket-accept", "lies")
		r := <-got
		if r.err != nil {
			t.Fatal(r.err)
		}
		cancel() // has no say over a tunnel
		fields := r.res.Fields
		accept := strings.Join(append([]string{}, fields.Join("Sec-WebSocket-Accept")), "")
		hop, err := fields.TakeHop()
		if r.res.Status != 101 || hop.Upgrade != "websocket" || err != nil || accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || fields.Get("Sec-WebSocket-Protocol") != "chat" {
			t.Errorf("status %d, %v, %v, accept %q", r.res.Status, fields, hop, accept)
		}
		tunnel := r.res.Tunnel
		tunnel.Write([]byte("ping"))
		if f := p.expect(h2.FrameData, 1); string(f.payload) != "ping" {
			t.Errorf("%q", f.payload)
		}
		time.Sleep(time.Minute)
		p.framer.WriteData(1, false, []byte("pong"))
		b := make([]byte, 10)
		if n, err := tunnel.Read(b); string(b[:n]) != "pong" || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
		tunnel.CloseWrite()
		if f := p.expect(h2.FrameData, 1); !f.Flags.Has(h2.FlagDataEndStream) {
			t.Error(f)
		}
		p.framer.WriteData(1, true, nil)
		if n, err := tunnel.Read(b); n > 0 || err != io.EOF {
			t.Errorf("at the end: %d, %v", n, err)
		}
		tunnel.Close()
		r.res.Body.Close()
		tunnel.Close()

		got = o.send(t.Context(), newWebSocket())
		p.expect(h2.FrameHeaders, 3)
		p.raw(3, false, ":status", "403", "content-length", "2")
		p.framer.WriteData(3, true, []byte("no"))
		o.ok(got, 403, "no")

		got = o.send(t.Context(), newWebSocket())
		p.expect(h2.FrameHeaders, 5)
		p.raw(5, false, ":status", "200")
		r = <-got
		reads := make(chan error, 1)
		go func() {
			_, err := r.res.Tunnel.Read(b)
			reads <- err
		}()
		synctest.Wait()
		r.res.Tunnel.Close()
		if <-reads == nil {
			t.Error("read after Close")
		}
		if f := p.expect(h2.FrameRSTStream, 5); f.code != h2.ErrCodeCancel {
			t.Errorf("reset with %v", f.code)
		}
		r.res.Body.Close()
	})
	bubble(t, func(t *testing.T, o *origins) {
		got := o.send(t.Context(), newWebSocket())
		p := o.greet()
		if err := o.fails(got, ErrNoWebSocket); errors.Is(err, exchange.ErrConnect) {
			t.Error(err)
		}
		if len(p.frames) > 0 {
			t.Error("something was sent")
		}
	})
}
