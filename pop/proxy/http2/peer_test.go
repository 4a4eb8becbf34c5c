package http2

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that says exactly what it is told to.
type peer struct {
	t      *testing.T
	nc     net.Conn
	framer *h2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	frames chan received // closed when the server has closed
	served chan struct{} // closed when ServeConn has returned
	past   []received    // that expect has passed over
}

// received is a frame from the server.
type received struct {
	h2.FrameHeader
	payload []byte            // without padding or fixed fields
	fields  map[string]string // of HEADERS
	number  uint32            // an error code, a window's increment or GOAWAY's last stream
	code    h2.ErrCode
}

// connect returns a peer that has said nothing yet.
func connect(t *testing.T, front *Front) *peer {
	return connectSlowly(t, front, 0)
}

// connectSlowly is connect for a peer that waits before each kilobyte it reads.
func connectSlowly(t *testing.T, front *Front, wait time.Duration) *peer {
	near, far := net.Pipe()
	p := connectedTo(slowConn{near, wait})
	p.t, p.frames, p.served = t, make(chan received, 10000), make(chan struct{})
	go func() {
		defer close(p.served)
		front.ServeConn(context.Background(), far, testInfo)
	}()
	go p.read()
	t.Cleanup(func() {
		near.Close()
		<-p.served
		for range p.frames { // until read has ended
		}
	})
	return p
}

// slowConn waits before each kilobyte it reads.
type slowConn struct {
	net.Conn
	wait time.Duration
}

func (c slowConn) Read(p []byte) (int, error) {
	if c.wait > 0 {
		time.Sleep(c.wait)
		p = p[:min(len(p), 1<<10)]
	}
	return c.Conn.Read(p)
}

// connectedTo returns a peer that can only write.
func connectedTo(nc net.Conn) *peer {
	p := &peer{nc: nc, framer: h2.NewFramer(nc, nc)}
	p.framer.AllowIllegalWrites = true
	p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.hpack = hpack.NewEncoder(&p.block)
	return p
}

// greeted returns a peer that has exchanged prefaces with the given settings.
func greeted(t *testing.T, front *Front, settings ...h2.Setting) *peer {
	return connect(t, front).greet(settings...)
}

// greet exchanges prefaces.
func (p *peer) greet(settings ...h2.Setting) *peer {
	p.nc.Write([]byte(h2.ClientPreface))
	p.framer.WriteSettings(settings...)
	p.expect(h2.FrameSettings, 0)
	p.expect(h2.FrameSettings, 0) // the acknowledgment
	return p
}

func (p *peer) read() {
	defer close(p.frames)
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return
		}
		r := received{FrameHeader: f.Header()}
		switch f := f.(type) {
		case *h2.MetaHeadersFrame:
			r.fields = make(map[string]string)
			for _, field := range f.Fields {
				r.fields[field.Name] = field.Value
			}
		case *h2.DataFrame:
			r.payload = bytes.Clone(f.Data())
		case *h2.RSTStreamFrame:
			r.code = f.ErrCode
		case *h2.GoAwayFrame:
			r.number, r.code = f.LastStreamID, f.ErrCode
		case *h2.WindowUpdateFrame:
			r.number = f.Increment
		case *h2.PingFrame:
			r.payload = f.Data[:]
		}
		p.frames <- r
	}
}

// expect returns the next frame of a type on a stream, and passes over others.
func (p *peer) expect(kind h2.FrameType, id uint32) received {
	p.t.Helper()
	for f := range p.frames {
		if f.Type == kind && f.StreamID == id {
			return f
		}
		p.past = append(p.past, f)
	}
	p.t.Fatalf("connection ended without %v on stream %d; came: %v", kind, id, p.past)
	panic("unreachable")
}

// ends expects a GOAWAY with a code, and the connection's end.
func (p *peer) ends(code h2.ErrCode) {
	p.t.Helper()
	if f := p.expect(h2.FrameGoAway, 0); f.code != code {
		p.t.Fatalf("GOAWAY with %v, want %v", f.code, code)
	}
	<-p.served
}

// headers encodes name, value pairs.
func (p *peer) headers(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

// request sends a head: a GET of path, or a POST that goes on if end is not set.
func (p *peer) request(id uint32, path string, end bool, fields ...string) {
	method := "GET"
	if !end {
		method = "POST"
	}
	head := append([]string{":method", method, ":scheme", "https", ":path", path, ":authority", "a.example"}, fields...)
	p.raw(id, end, head...)
}

// raw sends a head as it is.
func (p *peer) raw(id uint32, end bool, fields ...string) {
	block := p.headers(fields...)
	first := block[:min(len(block), frameSize)]
	block = block[len(first):]
	p.framer.WriteHeaders(h2.HeadersFrameParam{
		StreamID: id, BlockFragment: first, EndHeaders: len(block) == 0, EndStream: end,
	})
	for len(block) > 0 {
		next := block[:min(len(block), frameSize)]
		block = block[len(next):]
		p.framer.WriteContinuation(id, len(block) == 0, next)
	}
}

// response returns the status and body on a stream, up to its end.
func (p *peer) response(id uint32) (status, body string) {
	p.t.Helper()
	head := p.expect(h2.FrameHeaders, id)
	for strings.HasPrefix(head.fields[":status"], "1") {
		head = p.expect(h2.FrameHeaders, id)
	}
	var b strings.Builder
	for ended := head.Flags.Has(h2.FlagHeadersEndStream); !ended; {
		f, ok := <-p.frames
		if !ok || f.Type == h2.FrameRSTStream && f.StreamID == id {
			p.t.Fatalf("response on stream %d broke off: %v", id, f.code)
		}
		if f.StreamID == id && (f.Type == h2.FrameData || f.Type == h2.FrameHeaders) {
			b.Write(f.payload)
			ended = f.Flags.Has(h2.FlagDataEndStream)
		}
	}
	return head.fields[":status"], b.String()
}
