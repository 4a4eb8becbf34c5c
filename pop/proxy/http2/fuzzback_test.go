package http2

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// answer is one step of a hostile origin: like step, with responses for requests.
func (s *script) answer() error {
	f, kind := s.p.framer, s.next()
	id, arg := uint32(s.next()), s.next()
	statuses := []string{"200", "204", "304", "101", "100", "103", "999", "2x0"}
	switch kind % 16 {
	case 0:
		s.p.raw(id, arg&1 == 0, ":status", statuses[int(arg>>1)%len(statuses)], "x", "y")
	case 1:
		s.p.raw(id, arg&1 == 0, ":status", "200", "content-length", strings.Repeat("1", int(arg>>1)%8), "trailer", "a")
	case 2:
		return f.WriteGoAway(id, h2.ErrCode(arg), nil)
	case 3:
		return f.WritePushPromise(h2.PushPromiseParam{StreamID: id, PromiseID: uint32(arg), EndHeaders: true})
	case 9:
		return f.WriteSettings(h2.Setting{ID: h2.SettingID(id), Val: uint32(arg)})
	case 10:
		return f.WritePing(arg&1 == 0, pingAlive)
	default:
		s.left = append([]byte{kind, byte(id), arg}, s.left...)
		return s.step()
	}
	return nil
}

// Whatever an origin sends, every request comes to an end, a response of
// declared length has it, and all buffers come back when the back has ended.
func FuzzBackConn(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 3, 5, 5, 3, 1, 5, 3, 0})
	f.Add([]byte{0, 1, 11, 0, 1, 8, 0, 1, 1, 4, 1, 0, 0, 5, 0})
	f.Add([]byte{7, 1, 7, 7, 3, 8, 2, 1, 0, 0, 1, 0})
	f.Add([]byte{9, 4, 0, 8, 3, 9, 8, 0, 50, 9, 4, 255, 9, 3, 1, 9, 3, 0})
	f.Add([]byte{9, 8, 1, 0, 5, 1, 5, 5, 9, 5, 5, 0, 14, 0, 100})
	f.Add([]byte{3, 1, 2, 11, 1, 4, 0x88, 0x41, 12, 1, 2, 1, 'a', 13, 0, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			t.Skip("a longer script has the same steps, and slows the search")
		}
		before := buffers.Lent()
		synctest.Test(t, func(t *testing.T) {
			s := &script{left: data}
			serve := func(nc net.Conn) {
				defer nc.Close()
				go io.Copy(io.Discard, nc)
				s.p = connectedTo(nc)
				s.p.framer.WriteSettings(h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1})
				time.Sleep(time.Millisecond) // so that there are streams
				for len(s.left) > 0 && s.answer() == nil {
				}
				time.Sleep(2 * time.Second)
			}
			one := make(chan struct{}, 1) // one connection uses the script at a time
			var served sync.WaitGroup
			back := NewBack(BackConfig{Log: slog.New(slog.DiscardHandler), Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
				near, far := net.Pipe()
				served.Go(func() {
					one <- struct{}{}
					serve(far)
					<-one
				})
				return near, nil
			}})
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan struct{})
			go func() {
				defer close(ran)
				back.Run(ctx)
			}()
			small := newPost(wholeBody("body"), 4)
			small.Ready = 4
			expecting := newPost(wholeBody("body"), -1)
			expecting.Fields.Add("Expect", "100-continue")
			head := newGet()
			head.Method = "HEAD"
			var requests sync.WaitGroup
			for _, r := range []*exchange.Request{newGet(), small, newWebSocket(), expecting, head, newPost(io.NopCloser(io.LimitReader(zeros{}, 200000)), 200000)} {
				r.HeadWait, r.BodyWait = time.Second, time.Second
				requests.Go(func() {
					res, err := back.RoundTrip(ctx, testOrigin, r, func(status int, _ exchange.Fields) {
						if status < 102 || status > 199 {
							t.Errorf("informed of %d", status)
						}
					})
					if err != nil {
						return
					}
					defer res.Body.Close()
					if res.Tunnel != nil {
						defer res.Tunnel.Close()
						time.AfterFunc(time.Second, func() { res.Tunnel.Close() })
						res.Tunnel.Write(make([]byte, 100000))
						io.Copy(io.Discard, res.Tunnel)
						return
					}
					if res.Status < 200 {
						t.Errorf("status %d", res.Status)
					}
					n, err := io.Copy(io.Discard, res.Body)
					if err == nil && res.Length >= 0 && n != res.Length && r.Method != "HEAD" && res.Status != 304 {
						t.Errorf("a response of %d bytes passed for %d", n, res.Length)
					}
				})
			}
			requests.Wait()
			cancel()
			<-ran
			served.Wait()
		})
		if after := buffers.Lent(); after != before {
			t.Errorf("%d bytes of buffers are still lent", after-before)
		}
	})
}
