package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

// What an origin is sent.
func TestBackRequest(t *testing.T) {
	trailers := exchange.Fields{{Name: "X-Sum"}}
	for name, test := range map[string]struct {
		request exchange.Request
		fields  map[string]string // not there if empty
		end     bool              // with the head
		body    string
	}{
		"GET": {
			exchange.Request{Method: "GET", Authority: "a.example", Path: "/a?b", Fields: exchange.Fields{
				{Name: "Accept", Value: "*/*"}, {Name: "X-Long", Value: strings.Repeat("x", 300)}, {Name: "Host", Value: "evil"},
				{Name: "Connection", Value: "x"}, {Name: "Content-Length", Value: "9"}, {Name: "Authorization", Value: "Basic x"},
			}},
			map[string]string{
				":method": "GET", ":scheme": "http", ":path": "/a?b", ":authority": "a.example", "accept": "*/*", "x-long": strings.Repeat("x", 300),
				"host": "", "connection": "", "content-length": "", "te": "", "authorization": "Basic x",
			}, true, "",
		},
		"no authority": {exchange.Request{Method: "HEAD", Path: "/"}, map[string]string{":authority": "192.0.2.9:80", ":method": "HEAD", ":path": "/"}, true, ""},
		"trailers":     {exchange.Request{Method: "OPTIONS", Path: "*", AcceptsTrailers: true}, map[string]string{"te": "trailers", ":path": "*"}, true, ""},
		"empty POST":   {exchange.Request{Method: "POST", Path: "/"}, map[string]string{"content-length": "0"}, true, ""},
		"at hand": {
			exchange.Request{Method: "PUT", Path: "/", Body: wholeBody("body"), Length: 4, Ready: 4},
			map[string]string{"content-length": "4"}, false, "body",
		},
		"of known length": {
			exchange.Request{Method: "PUT", Path: "/", Body: wholeBody("body"), Length: 4},
			map[string]string{"content-length": "4"}, false, "body",
		},
		"of unknown length": {
			exchange.Request{Method: "PUT", Path: "/", Body: wholeBody("body"), Length: -1, Trailers: &trailers},
			map[string]string{"content-length": "", "trailer": "X-Sum"}, false, "body",
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				got := o.send(t.Context(), &test.request)
				p := o.greet()
				head := p.expect(h2.FrameHeaders, 1)
				for name, want := range test.fields {
					if head.fields[name] != want {
						t.Errorf("%s: %q, want %q", name, head.fields[name], want)
					}
				}
				ended := head.Flags.Has(h2.FlagHeadersEndStream)
				if ended != test.end {
					t.Errorf("ended with the head: %v", ended)
				}
				var body strings.Builder
				for !ended {
					f := <-p.frames
					body.Write(f.payload)
					ended = f.Flags.Has(h2.FlagDataEndStream) && f.StreamID == 1
				}
				if body.String() != test.body {
					t.Errorf("body %q", body.String())
				}
				p.raw(1, true, ":status", "204")
				o.ok(got, 204, "")
			})
		})
	}
}

func TestBackResponse(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		send   func(p *peer)
		want   string // status, length, body, fields, trailers
	}{
		"no body": {"GET", func(p *peer) { p.raw(1, true, ":status", "200", "x", "y") }, "200 0  [{x y}] []"},
		"length": {"GET", func(p *peer) {
			p.raw(1, false, ":status", "200", "content-length", "4")
			p.framer.WriteData(1, true, []byte("body"))
		}, "200 4 body [] []"},
		"stream": {"GET", func(p *peer) {
			p.raw(1, false, ":status", "200")
			p.framer.WriteData(1, false, []byte("bo"))
			p.framer.WriteDataPadded(1, false, []byte("dy"), make([]byte, 7))
			p.framer.WriteData(1, true, nil)
		}, "200 -1 body [] []"},
		"trailers": {"GET", func(p *peer) {
			p.raw(1, false, ":status", "200", "trailer", "x-sum")
			p.framer.WriteData(1, false, []byte("body"))
			p.raw(1, true, "x-sum", "7", "content-length", "9")
		}, "200 -1 body [] [{x-sum 7}]"},
		"trailers only": {"POST", func(p *peer) { p.raw(1, true, ":status", "200", "grpc-status", "7") }, "200 0  [{grpc-status 7}] []"},
		"HEAD":          {"HEAD", func(p *peer) { p.raw(1, true, ":status", "200", "content-length", "9") }, "200 9  [] []"},
		"HEAD, then empty": {"HEAD", func(p *peer) {
			p.raw(1, false, ":status", "200", "content-length", "9")
			p.framer.WriteData(1, true, nil)
		}, "200 9  [] []"},
		"304": {"GET", func(p *peer) { p.raw(1, true, ":status", "304", "content-length", "9") }, "304 9  [] []"},
		"204": {"GET", func(p *peer) { p.raw(1, true, ":status", "204", "content-length", "9") }, "204 -1  [] []"},
		"many frames": {"GET", func(p *peer) {
			block := p.headers(":status", "200", "a", "b", "c", "d")
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1], EndStream: true})
			p.framer.WriteContinuation(1, false, block[1:3])
			p.framer.WriteContinuation(1, true, block[3:])
		}, "200 0  [{a b} {c d}] []"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				r := newGet()
				r.Method = test.method
				got := o.send(t.Context(), r)
				p := o.greet()
				p.expect(h2.FrameHeaders, 1)
				test.send(p)
				g := <-got
				if g.err != nil {
					t.Fatal(g.err)
				}
				body, err := io.ReadAll(g.res.Body)
				if s := fmt.Sprint(g.res.Status, g.res.Length, " "+string(body)+" ", g.res.Fields, *g.res.Trailers); s != test.want || err != nil {
					t.Errorf("%s, %v; want %s", s, err, test.want)
				}
				g.res.Body.Close()
			})
		})
	}
}

// A malformed response fails its request alone: the stream is reset, and the
// connection goes on.
func TestBackMalformed(t *testing.T) {
	for name, send := range map[string]func(p *peer){
		"no status":         func(p *peer) { p.raw(1, true, "a", "b") },
		"status twice":      func(p *peer) { p.raw(1, true, ":status", "200", ":status", "200") },
		"short status":      func(p *peer) { p.raw(1, true, ":status", "20") },
		"status no number":  func(p *peer) { p.raw(1, true, ":status", "2x0") },
		"status too high":   func(p *peer) { p.raw(1, true, ":status", "600") },
		"status after":      func(p *peer) { p.raw(1, true, "a", "b", ":status", "200") },
		"request pseudo":    func(p *peer) { p.raw(1, true, ":status", "200", ":path", "/") },
		"unknown pseudo":    func(p *peer) { p.raw(1, true, ":status", "200", ":x", "/") },
		"upper case":        func(p *peer) { p.raw(1, true, ":status", "200", "Accept", "x") },
		"value with LF":     func(p *peer) { p.raw(1, true, ":status", "200", "a", "x\ny") },
		"name with space":   func(p *peer) { p.raw(1, true, ":status", "200", "a b", "x") },
		"connection":        func(p *peer) { p.raw(1, true, ":status", "200", "connection", "close") },
		"transfer-encoding": func(p *peer) { p.raw(1, true, ":status", "200", "transfer-encoding", "chunked") },
		"te":                func(p *peer) { p.raw(1, true, ":status", "200", "te", "trailers") },
		"upgrade":           func(p *peer) { p.raw(1, true, ":status", "200", "upgrade", "h2c") },
		"switching":         func(p *peer) { p.raw(1, false, ":status", "101") },
		"interim ends":      func(p *peer) { p.raw(1, true, ":status", "103") },
		"length differs":    func(p *peer) { p.raw(1, true, ":status", "200", "content-length", "1", "content-length", "2") },
		"length no number":  func(p *peer) { p.raw(1, true, ":status", "200", "content-length", "+1") },
		"length, no body":   func(p *peer) { p.raw(1, true, ":status", "200", "content-length", "1") },
		"data first":        func(p *peer) { p.framer.WriteData(1, true, []byte("x")) },
		"too large":         func(p *peer) { p.raw(1, true, ":status", "200", "a", strings.Repeat("x", 300<<10)) },
		"too many interim": func(p *peer) {
			for range maxInterim + 1 {
				p.raw(1, false, ":status", "103")
			}
		},
		"more than the length": func(p *peer) {
			p.raw(1, false, ":status", "200", "content-length", "1")
			p.framer.WriteData(1, true, []byte("xy"))
		},
		"less than the length": func(p *peer) {
			p.raw(1, false, ":status", "200", "content-length", "3")
			p.framer.WriteData(1, true, []byte("xy"))
		},
		"less, then trailers": func(p *peer) {
			p.raw(1, false, ":status", "200", "content-length", "3")
			p.framer.WriteData(1, false, []byte("xy"))
			p.raw(1, true, "a", "b")
		},
		"body of 204": func(p *peer) {
			p.raw(1, false, ":status", "204")
			p.framer.WriteData(1, true, []byte("xy"))
		},
		"second head":      func(p *peer) { p.raw(1, false, ":status", "200"); p.raw(1, true, ":status", "200") },
		"trailers go on":   func(p *peer) { p.raw(1, false, ":status", "200"); p.raw(1, false, "a", "b") },
		"update by zero":   func(p *peer) { p.framer.WriteWindowUpdate(1, 0) },
		"window overflows": func(p *peer) { p.framer.WriteWindowUpdate(1, maxWindow) },
		"beyond the window": func(p *peer) {
			p.raw(1, false, ":status", "200")
			for range linkStreamWindow/frameSize + 1 {
				p.framer.WriteData(1, false, make([]byte, frameSize))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				got := o.get()
				p := o.greet()
				p.expect(h2.FrameHeaders, 1)
				if name == "beyond the window" {
					go send(p)
					synctest.Wait()
				} else {
					send(p)
				}
				o.fails(got, nil)
				p.expect(h2.FrameRSTStream, 1)
				got = o.get()
				p.expect(h2.FrameHeaders, 3)
				p.raw(3, true, ":status", "200")
				o.ok(got, 200, "")
			})
		})
	}
}

// Faults of a connection fail what is on it, and the next request has another
// one.
func TestBackConnectionErrors(t *testing.T) {
	for name, test := range map[string]struct {
		send func(p *peer)
		code h2.ErrCode
	}{
		"push": {func(p *peer) {
			p.framer.WritePushPromise(h2.PushPromiseParam{StreamID: 3, PromiseID: 2, EndHeaders: true, BlockFragment: p.headers(":method", "GET")})
		}, h2.ErrCodeProtocol},
		"push enabled":    {func(p *peer) { p.framer.WriteSettings(h2.Setting{ID: h2.SettingEnablePush, Val: 1}) }, h2.ErrCodeProtocol},
		"idle stream":     {func(p *peer) { p.raw(5, true, ":status", "200") }, h2.ErrCodeProtocol},
		"even stream":     {func(p *peer) { p.raw(2, true, ":status", "200") }, h2.ErrCodeProtocol},
		"data on idle":    {func(p *peer) { p.framer.WriteData(5, true, nil) }, h2.ErrCodeProtocol},
		"reset of idle":   {func(p *peer) { p.framer.WriteRSTStream(5, h2.ErrCodeCancel) }, h2.ErrCodeProtocol},
		"broken block":    {func(p *peer) { p.framer.WriteRawFrame(h2.FrameHeaders, 5, 3, []byte{0xff, 0xff}) }, h2.ErrCodeCompression},
		"large frame":     {func(p *peer) { p.framer.WriteData(3, true, make([]byte, frameSize+1)) }, h2.ErrCodeFrameSize},
		"window overflow": {func(p *peer) { p.framer.WriteWindowUpdate(0, maxWindow) }, h2.ErrCodeFlowControl},
		"settings flood": {func(p *peer) {
			for range 1000 {
				p.framer.WriteSettings()
			}
		}, h2.ErrCodeEnhanceYourCalm},
		"ping flood": {func(p *peer) {
			for range 1000 {
				p.framer.WritePing(false, [8]byte{})
			}
		}, h2.ErrCodeEnhanceYourCalm},
		"empty frames": {func(p *peer) {
			p.raw(3, false, ":status", "200")
			for range 1000 {
				p.framer.WriteData(3, false, nil)
			}
		}, h2.ErrCodeEnhanceYourCalm},
		"continuations": {func(p *peer) {
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 3, BlockFragment: p.headers(":status", "200")})
			for range 1000 {
				p.framer.WriteContinuation(3, false, p.headers("a", "b"))
			}
		}, h2.ErrCodeEnhanceYourCalm},
		"hpack bomb": {func(p *peer) {
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 3, BlockFragment: p.headers("bomb", strings.Repeat("x", 3900))})
			p.framer.WriteContinuation(3, false, []byte(strings.Repeat("\xbe", frameSize)))
		}, h2.ErrCodeEnhanceYourCalm},
		"late frames": {func(p *peer) {
			for range 1000 {
				p.raw(1, true, ":status", "200")
			}
		}, h2.ErrCodeEnhanceYourCalm},
		"late resets": {func(p *peer) {
			for range 1000 {
				p.framer.WriteRSTStream(1, h2.ErrCodeCancel)
			}
		}, h2.ErrCodeEnhanceYourCalm},
		"unknown frames": {func(p *peer) {
			for range 1000 {
				p.framer.WriteRawFrame(0xfa, 0, 0, nil)
			}
		}, h2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				p := o.established()
				r := newGet()
				r.Method = "POST" // not to be repeated
				got := o.send(t.Context(), r)
				p.expect(h2.FrameHeaders, 3)
				test.send(p)
				o.fails(got, nil)
				if f := p.expect(h2.FrameGoAway, 0); f.code != test.code {
					t.Errorf("GOAWAY with %v, want %v", f.code, test.code)
				}
				o.established()
			})
		})
	}
}

func TestBackInterim(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		var informed []string
		done := make(chan result, 1)
		go func() {
			res, err := o.back.RoundTrip(t.Context(), testOrigin, newGet(), func(status int, fields exchange.Fields) {
				informed = append(informed, fmt.Sprint(status, fields))
			})
			done <- result{res, err}
		}()
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		p.raw(1, false, ":status", "100")
		p.raw(1, false, ":status", "103", "link", "</a>")
		p.raw(1, false, ":status", "103", "link", "</b>")
		p.raw(1, true, ":status", "200")
		o.ok(done, 200, "")
		if got := fmt.Sprint(informed); got != "[103 [{link </a>}] 103 [{link </b>}]]" {
			t.Error(got)
		}
	})
}

// A body is not sent before the origin asks for it, or keeps silent.
func TestBackExpect(t *testing.T) {
	for name, test := range map[string]struct {
		send    func(p *peer)
		touched bool
	}{
		"asked for": {func(p *peer) { p.raw(1, false, ":status", "100") }, true},
		"silence":   {func(p *peer) { time.Sleep(continueWait) }, true},
		"refused":   {func(p *peer) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				body, client := newClientBody()
				r := newPost(body, -1)
				r.Fields.Add("Expect", "100-continue")
				got := o.send(t.Context(), r)
				go func() {
					client.Write([]byte("body"))
					client.Close()
				}()
				p := o.greet()
				if f := p.expect(h2.FrameHeaders, 1); f.fields["expect"] != "100-continue" {
					t.Error(f.fields)
				}
				synctest.Wait()
				if len(p.frames) > 0 {
					t.Errorf("%d frames before the origin asked", len(p.frames))
				}
				test.send(p)
				if test.touched {
					if f := p.expect(h2.FrameData, 1); string(f.payload) != "body" {
						t.Errorf("%q", f.payload)
					}
					p.expect(h2.FrameData, 1)
				}
				p.raw(1, true, ":status", "417")
				o.ok(got, 417, "")
				if !test.touched {
					if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeCancel {
						t.Errorf("reset with %v", f.code)
					}
					client.CloseWithError(io.EOF)
				}
			})
		})
	}
}

// The end of a context, and of an origin's time, end the stream alone.
func TestBackGivesUp(t *testing.T) {
	for name, test := range map[string]struct {
		head  bool // comes
		wait  time.Duration
		after time.Duration
		want  error
	}{
		"context, before the head": {false, 0, 0, context.Canceled},
		"context, in the body":     {true, 0, 0, context.Canceled},
		"slow head":                {false, 3 * time.Second, 3 * time.Second, exchange.ErrSlow},
		"slow body":                {true, 3 * time.Second, 3 * time.Second, exchange.ErrSlow},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				p := o.established()
				ctx, cancel := context.WithCancel(t.Context())
				r := newGet()
				r.HeadWait, r.BodyWait = test.wait, test.wait
				got := o.send(ctx, r)
				p.expect(h2.FrameHeaders, 3)
				if test.head {
					time.Sleep(test.wait / 2)
					p.raw(3, false, ":status", "200")
				}
				start := time.Now()
				if test.wait == 0 {
					cancel()
				}
				o.fails(got, test.want)
				if took := time.Since(start); took < test.after || took > test.after+glance {
					t.Errorf("gave up after %v", took)
				}
				cancel()
				if f := p.expect(h2.FrameRSTStream, 3); f.code != h2.ErrCodeCancel {
					t.Errorf("reset with %v", f.code)
				}
				p.raw(3, true, ":status", "200") // comes too late
				got = o.get()
				p.expect(h2.FrameHeaders, 5)
				p.raw(5, true, ":status", "200")
				o.ok(got, 200, "")
			})
		})
	}
}

// Time that is spent on waiting for the client is not the origin's.
func TestBackSlowClient(t *testing.T) {
	bubble(t, func(t *testing.T, o *origins) {
		body, client := newClientBody()
		r := newPost(body, -1)
		r.HeadWait = 3 * time.Second
		got := o.send(t.Context(), r)
		p := o.greet()
		p.expect(h2.FrameHeaders, 1)
		for range 5 {
			time.Sleep(2 * time.Second)
			client.Write([]byte("x"))
		}
		client.Close()
		time.Sleep(2 * time.Second)
		p.raw(1, true, ":status", "200")
		o.ok(got, 200, "")
	})
}

// A client's body that breaks off is not taken for complete, and the reason
// gets through.
func TestBackBrokenBody(t *testing.T) {
	reason := errors.New("broke off")
	for name, length := range map[string]int64{"length": 9, "stream": -1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, o *origins) {
				body, client := newClientBody()
				got := o.send(t.Context(), newPost(body, length))
				p := o.greet()
				p.expect(h2.FrameHeaders, 1)
				client.Write([]byte("x"))
				client.CloseWithError(reason)
				o.fails(got, reason)
				if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeCancel {
					t.Errorf("reset with %v", f.code)
				}
			})
		})
	}
	bubble(t, func(t *testing.T, o *origins) { // shorter than it said
		got := o.send(t.Context(), newPost(wholeBody("x"), 9))
		p := o.greet()
		o.fails(got, io.ErrUnexpectedEOF)
		p.expect(h2.FrameRSTStream, 1)
	})
}
