package http2

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// script makes frames of bytes, so that fuzzing comes upon sequences of valid
// frames and not only upon malformed ones. Each step is a kind, a stream and an
// argument.
type script struct {
	p    *peer
	left []byte
}

func (s *script) next() (b byte) {
	if len(s.left) > 0 {
		b, s.left = s.left[0], s.left[1:]
	}
	return b
}

func (s *script) step() error {
	f, kind := s.p.framer, s.next()
	id, arg := uint32(s.next()), s.next()
	switch kind % 16 {
	case 0:
		s.p.request(id, "/", arg&1 == 0)
	case 1:
		s.p.request(id, "/echo", arg&1 == 0, "content-length", strings.Repeat("1", int(arg>>1)%8), "expect", "100-continue")
	case 2:
		s.p.request(id, "/bytes?100000", true)
	case 3:
		s.p.raw(id, arg&1 == 0, extended...)
	case 4:
		s.p.raw(id, arg&1 == 0, "x-trailer", "a")
	case 5:
		return f.WriteData(id, arg&1 == 0, make([]byte, int(arg)*70))
	case 6:
		return f.WriteDataPadded(id, arg&1 == 0, make([]byte, arg), make([]byte, 255-arg))
	case 7:
		return f.WriteRSTStream(id, h2.ErrCode(arg))
	case 8:
		return f.WriteWindowUpdate(id, uint32(arg)<<(arg%24))
	case 9:
		return f.WriteSettings(h2.Setting{ID: h2.SettingID(id), Val: uint32(arg) << (arg % 24)})
	case 10:
		return f.WritePing(arg&1 == 0, pingDrain)
	case 11:
		return f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: s.bytes(arg), EndHeaders: arg&1 == 0, EndStream: arg&2 == 0})
	case 12:
		return f.WriteContinuation(id, arg&1 == 0, s.bytes(arg))
	case 13:
		return f.WriteRawFrame(h2.FrameType(arg%16), h2.Flags(arg), id, s.bytes(arg))
	case 14:
		time.Sleep(time.Duration(arg) * 100 * time.Millisecond)
	case 15:
		_, err := s.p.nc.Write(s.bytes(arg))
		return err
	}
	return nil
}

func (s *script) bytes(n byte) []byte {
	b := s.left[:min(int(n), len(s.left))]
	s.left = s.left[len(b):]
	return b
}

// Whatever a client sends, the connection ends when the client does, every
// handler returns and all buffers come back; a handler's body is never taken
// for complete unless its length agrees.
func FuzzConn(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 3, 0, 14, 0, 1})
	f.Add([]byte{1, 1, 3, 5, 1, 1, 5, 1, 0, 0, 3, 0})
	f.Add([]byte{3, 1, 1, 5, 1, 9, 5, 1, 0, 7, 1, 8})
	f.Add([]byte{9, 4, 0, 2, 1, 0, 8, 1, 9, 8, 0, 50, 9, 4, 255})
	f.Add([]byte{11, 1, 4, 0x82, 0x87, 0x84, 0x41, 12, 1, 2, 1, 'a', 10, 0, 1, 13, 0, 7})
	f.Add([]byte{0, 1, 1, 4, 1, 0, 0, 1, 0, 7, 3, 0, 15, 0, 4, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			t.Skip("a longer script has the same steps, and slows the search")
		}
		before := buffers.Lent()
		synctest.Test(t, func(t *testing.T) {
			front := NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
				r := &x.Request
				if r.Body != nil && r.Length >= 0 {
					n, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1000))
					if m, rest := io.Copy(io.Discard, r.Body); err == nil && rest == nil && n+m != r.Length {
						t.Errorf("a body of %d bytes passed for %d", n+m, r.Length)
					}
				}
				testServer(ctx, x)
			}))
			near, far := net.Pipe()
			served := make(chan struct{})
			go func() {
				defer close(served)
				front.ServeConn(context.Background(), far, testInfo)
			}()
			go io.Copy(io.Discard, near)
			p := connectedTo(near)
			near.Write([]byte(h2.ClientPreface))
			p.framer.WriteSettings()
			s := &script{p: p, left: data}
			for len(s.left) > 0 && s.step() == nil {
			}
			if len(data)%2 == 0 {
				front.Drain()
			}
			near.Close()
			<-served
		})
		if after := buffers.Lent(); after != before {
			t.Errorf("%d bytes of buffers are still lent", after-before)
		}
	})
}
