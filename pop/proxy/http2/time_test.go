package http2

import (
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

func TestTimeouts(t *testing.T) {
	for name, test := range map[string]struct {
		client func(p *peer)
		after  time.Duration // until the connection ends
		code   h2.ErrCode
		silent bool // without a GOAWAY
	}{
		"no preface": {func(*peer) {}, 10 * time.Second, h2.ErrCodeNo, false},
		"slow preface": {func(p *peer) {
			for _, b := range []byte(h2.ClientPreface) {
				time.Sleep(time.Second)
				p.nc.Write([]byte{b})
			}
		}, 10 * time.Second, h2.ErrCodeNo, false},
		"no settings": {func(p *peer) { p.nc.Write([]byte(h2.ClientPreface)) }, 10 * time.Second, h2.ErrCodeNo, false},
		"idle": {func(p *peer) {
			p.nc.Write([]byte(h2.ClientPreface))
			p.framer.WriteSettings()
			time.Sleep(5 * time.Second)
			p.request(1, "/", true)
			p.response(1)
		}, 65 * time.Second, h2.ErrCodeNo, false},
		"slow header block": {func(p *peer) {
			p.nc.Write([]byte(h2.ClientPreface))
			p.framer.WriteSettings()
			p.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: p.headers(":method", "GET")})
			for p.framer.WriteContinuation(1, false, p.headers("a", "b")) == nil {
				time.Sleep(900 * time.Millisecond)
			}
		}, 10 * time.Second, h2.ErrCodeNo, false},
		"slow frame": {func(p *peer) {
			p.nc.Write([]byte(h2.ClientPreface))
			p.framer.WriteSettings()
			for _, b := range []byte("\x00\x40\x00\x01\x04\x00\x00\x00\x01aaaaaaaaaaaa") {
				p.nc.Write([]byte{b})
				time.Sleep(900 * time.Millisecond)
			}
		}, 10 * time.Second, h2.ErrCodeNo, false},
		"dead": {func(p *peer) {
			p.nc.Write([]byte(h2.ClientPreface))
			p.framer.WriteSettings()
			p.request(1, "/wait", true)
		}, 70 * time.Second, 0, true},
		"alive": {func(p *peer) {
			p.nc.Write([]byte(h2.ClientPreface))
			p.framer.WriteSettings()
			p.request(1, "/wait", true)
			for range 3 {
				f := p.expect(h2.FramePing, 0)
				p.framer.WritePing(true, [8]byte(f.payload))
			}
		}, 250 * time.Second, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			checkBuffers(t)
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				p := connect(t, NewFront(config(waiting)))
				var client sync.WaitGroup
				client.Go(func() { test.client(p) })
				<-p.served
				took := time.Since(start)
				if took < test.after || took > test.after+2*linger {
					t.Errorf("ended after %v, want %v", took, test.after)
				}
				client.Wait()
				said := false
				for f := range p.frames {
					if f.Type == h2.FrameGoAway {
						said = true
						if f.code != test.code {
							t.Errorf("GOAWAY with %v", f.code)
						}
					}
				}
				if said == test.silent {
					t.Errorf("GOAWAY: %v", said)
				}
			})
		})
	}
}

func TestBodyTimeouts(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		p := greeted(t, NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
			if x.Request.Body != nil {
				_, err := io.Copy(io.Discard, x.Request.Body)
				ends <- err
				return
			}
			ends <- respond(x, 200, -1, zeros{})
		})))
		start := time.Now()
		p.request(1, "/", false)
		p.framer.WriteData(1, false, make([]byte, 100))
		if err := <-ends; err != os.ErrDeadlineExceeded || time.Since(start) != patience {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		start = time.Now()
		p.request(3, "/", true)
		if err := <-ends; err != os.ErrDeadlineExceeded || time.Since(start) != patience {
			t.Errorf("write: %v after %v", err, time.Since(start))
		}
	})
}

// A client that reads nothing at all loses its connection, not before BodyIdle.
func TestWriteTimeout(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		served, start := make(chan struct{}), time.Now()
		go func() {
			defer close(served)
			NewFront(config(testServer)).ServeConn(t.Context(), far, testInfo)
		}()
		near.Write([]byte(h2.ClientPreface))
		h2.NewFramer(near, nil).WriteSettings()
		<-served
		if took := time.Since(start); took < patience || took > 2*patience {
			t.Errorf("ended after %v", took)
		}
	})
}

// No request is lost in a drain.
func TestDrain(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		front := NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
			if x.Request.Path == "/wait" {
				<-release
			}
			testServer(ctx, x)
		}))
		p := greeted(t, front)
		p.request(1, "/wait", true)
		front.Drain()
		if f := p.expect(h2.FrameGoAway, 0); f.number != math.MaxInt32 || f.code != h2.ErrCodeNo {
			t.Fatalf("first %v %v", f.number, f.code)
		}
		ping := p.expect(h2.FramePing, 0)
		p.request(3, "/", true) // was on its way
		if status, _ := p.response(3); status != "200" {
			t.Fatal(status)
		}
		p.framer.WritePing(true, [8]byte(ping.payload))
		if f := p.expect(h2.FrameGoAway, 0); f.number != 3 || f.code != h2.ErrCodeNo {
			t.Fatalf("then %v %v", f.number, f.code)
		}
		p.request(5, "/", false) // is not served, and the client knows
		p.framer.WriteData(5, false, []byte("sent before the GOAWAY came"))
		p.framer.WriteWindowUpdate(5, 1)
		p.framer.WriteRSTStream(5, h2.ErrCodeCancel)
		close(release)
		if status, _ := p.response(1); status != "200" {
			t.Fatal(status)
		}
		<-p.served
		for f := range p.frames {
			t.Errorf("then came %v", f)
		}

		// Later connections are served. A client that answers no ping is told
		// all the same.
		p = greeted(t, front)
		p.request(1, "/", true)
		p.response(1)
		start := time.Now()
		front.Drain()
		p.expect(h2.FrameGoAway, 0)
		p.ends(h2.ErrCodeNo)
		if took := time.Since(start); took != patience {
			t.Errorf("ended after %v", took)
		}
	})
}

// A client that reads slowly gets the end of the last response, however long it
// takes.
func TestDrainWaitsForSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3 * 16375 // the last frame is a large one
		front := NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			respond(x, 200, size, bytes.NewReader(make([]byte, size)))
		}))
		p := connectSlowly(t, front, 400*time.Millisecond).greet()
		p.request(1, "/", true)
		synctest.Wait()
		front.CloseIdle()
		got := 0
		for f := range p.frames {
			if got += len(f.payload); f.Type == h2.FrameData && f.Flags.Has(h2.FlagDataEndStream) {
				if got != size {
					t.Errorf("%d bytes of %d", got, size)
				}
				return
			}
		}
		t.Errorf("the connection ended after %d bytes of %d", got, size)
	})
}

func TestCloseIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		front := NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			<-release
			respond(x, 200, 0, nil)
		}))
		idle, busy := greeted(t, front), greeted(t, front)
		busy.request(1, "/", true)
		synctest.Wait()
		front.CloseIdle()
		idle.ends(h2.ErrCodeNo)
		busy.expect(h2.FrameGoAway, 0)
		close(release)
		if status, _ := busy.response(1); status != "200" {
			t.Error(status)
		}
		<-busy.served
		connect(t, front).ends(h2.ErrCodeNo)
	})
}

// The end of ServeConn's context ends the exchanges, and with them the
// connection.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		near, far := net.Pipe()
		defer near.Close()
		ended := false
		served := make(chan struct{})
		go func() {
			defer close(served)
			NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
				<-ctx.Done()
				ended = true
			})).ServeConn(ctx, far, testInfo)
		}()
		go io.Copy(io.Discard, near)
		p := &peer{framer: h2.NewFramer(near, near)}
		near.Write([]byte(h2.ClientPreface))
		p.framer.WriteSettings()
		near.Write(bytes.Join([][]byte{{0, 0, 10, 1, 5, 0, 0, 0, 1}, {0x82, 0x87, 0x84, 0x41, 5}, []byte("a.com")}, nil))
		synctest.Wait()
		cancel()
		<-served
		if !ended {
			t.Error("the exchange's context did not end")
		}
	})
}

// Last asks the client to go, without losing requests.
func TestLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			x.Client.Respond(&exchange.Response{Status: 200, Length: 0, Last: true})
		})))
		p.request(1, "/", true)
		if f := p.expect(h2.FrameGoAway, 0); f.number != math.MaxInt32 {
			t.Errorf("last stream %d", f.number)
		}
	})
}

// A body of declared length that comes too slowly on the whole is given up, but
// not for time that the handler spends on other things.
func TestBodyRate(t *testing.T) {
	for name, test := range map[string]struct {
		declared bool
		pace     time.Duration // between pieces of 1000 bytes
		busy     time.Duration // of the handler, before each Read
		after    time.Duration // until the body is given up; 0 if it comes to its end
	}{
		"fast":                 {true, time.Second, 0, 0},
		"slow":                 {true, 3 * time.Second, 0, rateGrace},
		"of unknown length":    {false, 3 * time.Second, 0, 0},
		"slow but fast enough": {true, 1200 * time.Millisecond, 0, 0},
		"for a busy handler":   {true, 3 * time.Second, 3 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			checkBuffers(t)
			synctest.Test(t, func(t *testing.T) {
				c := config(nil)
				c.BodyRate = 500
				ends := make(chan error, 1)
				c.Handler = func(_ context.Context, x *exchange.Exchange) {
					for b := make([]byte, 2000); ; {
						time.Sleep(test.busy)
						if _, err := x.Request.Body.Read(b); err != nil {
							ends <- err
							return
						}
					}
				}
				p := greeted(t, NewFront(c))
				const pieces = 20
				if test.declared {
					p.request(1, "/", false, "content-length", strconv.Itoa(pieces*1000))
				} else {
					p.request(1, "/", false)
				}
				start := time.Now()
				go func() {
					for i := range pieces {
						time.Sleep(test.pace)
						p.framer.WriteData(1, i == pieces-1, make([]byte, 1000))
					}
				}()
				err := <-ends
				switch took := time.Since(start); {
				case test.after == 0 && err != io.EOF:
					t.Errorf("ended after %v: %v", took, err)
				case test.after > 0 && (err != os.ErrDeadlineExceeded || took != test.after):
					t.Errorf("ended after %v, want %v: %v", took, test.after, err)
				}
				time.Sleep(pieces * test.pace)
			})
		})
	}
}
