package http2

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// A body is taken only as fast as the handler reads it.
func TestUploadBackpressure(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		read, total := make(chan int), make(chan int)
		p := greeted(t, NewFront(config(func(ctx context.Context, x *exchange.Exchange) {
			if x.Request.Path == "/wait" {
				<-ctx.Done()
				return
			}
			for n := range read {
				io.CopyN(io.Discard, x.Request.Body, int64(n))
			}
			n, _ := io.Copy(io.Discard, x.Request.Body)
			total <- int(n)
			respond(x, 200, 0, nil)
		})))
		p.request(1, "/", false)
		piece := make([]byte, frameSize)
		for range streamWindow / frameSize {
			p.framer.WriteData(1, false, piece)
		}
		synctest.Wait()
		if held := buffers.Lent(); held < streamWindow || held > streamWindow+2*frameSize {
			t.Errorf("%d bytes are held, want about %d", held, streamWindow)
		}
		read <- streamWindow / 2
		if f := p.expect(h2.FrameWindowUpdate, 1); f.number < streamWindow/2 {
			t.Errorf("window opened by %d", f.number)
		}
		p.framer.WriteData(1, true, piece)
		close(read)
		if n := <-total; n != streamWindow/2+frameSize {
			t.Errorf("read %d bytes more", n)
		}
		p.response(1)

		// Beyond the window is an error of the stream.
		p.request(3, "/wait", false)
		for range streamWindow/frameSize + 1 {
			p.framer.WriteData(3, false, piece)
		}
		if f := p.expect(h2.FrameRSTStream, 3); f.code != h2.ErrCodeFlowControl {
			t.Errorf("reset with %v", f.code)
		}
	})
}

// What nobody reads gives the connection's window back, or other streams would
// starve.
func TestUnreadBodies(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) { respond(x, 403, 0, nil) })))
		piece := make([]byte, frameSize)
		sent := 0
		for id := uint32(1); sent < 3*connWindow; id += 2 {
			p.request(id, "/", false)
			p.framer.WriteData(id, false, piece)
			sent += len(piece)
			if status, _ := p.response(id); status != "403" {
				t.Fatal(status)
			}
			p.expect(h2.FrameRSTStream, id)
			p.framer.WriteData(id, false, piece) // was on its way
			sent += len(piece)
		}
	})
}

func TestDownloadWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := greeted(t, NewFront(config(testServer)), h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
		p.request(1, "/bytes?70000", true)
		p.request(3, "/bytes?70000", true)
		p.expect(h2.FrameHeaders, 1)
		synctest.Wait()
		if len(p.frames) > 1 {
			t.Fatalf("%d frames beyond the window", len(p.frames))
		}
		got := map[uint32]int{}
		take := func(n int) {
			for n > 0 {
				f := <-p.frames
				if f.Type == h2.FrameData {
					got[f.StreamID] += len(f.payload)
					n -= len(f.payload)
				}
			}
			synctest.Wait()
			if n < 0 || len(p.frames) > 0 {
				t.Fatalf("%d bytes and %d frames too many", -n, len(p.frames))
			}
		}
		p.framer.WriteWindowUpdate(1, 5)
		take(5)
		p.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 60000}) // both streams by as much
		p.expect(h2.FrameSettings, 0)
		take(65535 - 5) // then the connection's is spent
		p.framer.WriteWindowUpdate(0, 1)
		take(1)
		p.framer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 10}) // makes them negative
		p.expect(h2.FrameSettings, 0)
		p.framer.WriteWindowUpdate(0, 1<<20)
		take(0)
		p.framer.WriteWindowUpdate(1, 1<<20)
		p.framer.WriteWindowUpdate(3, 1<<20)
		take(140000 - got[1] - got[3])
		if got[1] != 70000 || got[3] != 70000 {
			t.Errorf("got %v", got)
		}
	})
}

func TestResponses(t *testing.T) {
	checkBuffers(t)
	synctest.Test(t, func(t *testing.T) {
		p := greeted(t, NewFront(config(testServer)))
		// A head, its body and the end go out together.
		p.request(1, "/bytes?5", true)
		head := p.expect(h2.FrameHeaders, 1)
		if head.fields["content-length"] != "5" || head.fields["content-type"] != "text/plain" || head.fields["connection"] != "" {
			t.Errorf("fields %v", head.fields)
		}
		if f := p.expect(h2.FrameData, 1); string(f.payload) != "00000" || !f.Flags.Has(h2.FlagDataEndStream) {
			t.Errorf("DATA %v", f)
		}
		// No body where there must be none, but its length.
		p.raw(3, true, ":method", "HEAD", ":scheme", "https", ":path", "/bytes?5", ":authority", "a")
		if f := p.expect(h2.FrameHeaders, 3); !f.Flags.Has(h2.FlagHeadersEndStream) || f.fields["content-length"] != "5" {
			t.Errorf("HEAD: %v", f)
		}
		for i, status := range []string{"204", "304"} {
			id := uint32(5 + 2*i)
			p.request(id, "/status?"+status, true)
			if f := p.expect(h2.FrameHeaders, id); !f.Flags.Has(h2.FlagHeadersEndStream) || f.fields[":status"] != status || f.fields["content-length"] != "" {
				t.Errorf("%s: %v", status, f)
			}
		}
		// Trailers end the stream.
		p.request(9, "/stream?5", true)
		p.expect(h2.FrameHeaders, 9)
		p.expect(h2.FrameData, 9)
		if f := p.expect(h2.FrameHeaders, 9); f.fields["x-sum"] != "5" || !f.Flags.Has(h2.FlagHeadersEndStream) {
			t.Errorf("trailers %v", f)
		}
		p.request(11, "/early", true)
		if f := p.expect(h2.FrameHeaders, 11); f.fields[":status"] != "103" || f.fields["link"] != "</a>" {
			t.Errorf("interim %v", f)
		}
		if status, body := p.response(11); status != "200" || body != "ok" {
			t.Errorf("then %s %q", status, body)
		}
		// A body that breaks off is no end.
		p.request(13, "/broken", true)
		if f := p.expect(h2.FrameRSTStream, 13); f.code != h2.ErrCodeInternal {
			t.Errorf("reset with %v", f.code)
		}
		// The client waits to be told to go on.
		p.request(15, "/echo", false, "expect", "100-continue")
		if f := p.expect(h2.FrameHeaders, 15); f.fields[":status"] != "200" {
			t.Errorf("a response that has begun: %v", f)
		}
		p.framer.WriteData(15, true, nil)
		p.request(17, "/", false, "expect", "100-continue")
		if f := p.expect(h2.FrameHeaders, 17); f.fields[":status"] != "100" {
			t.Errorf("interim %v", f)
		}
		p.framer.WriteData(17, true, []byte("body"))
		if status, _ := p.response(17); status != "200" {
			t.Errorf("then %s", status)
		}
	})
}

// Bodies that end too early or late break the message off, as do errors.
func TestBrokenResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, r := range map[string]exchange.Response{
			"short":   {Status: 200, Length: 5, Body: io.NopCloser(strings.NewReader("1234"))},
			"long":    {Status: 200, Length: 5, Body: io.NopCloser(strings.NewReader("123456"))},
			"none":    {Status: 200, Length: 5},
			"fails":   {Status: 200, Length: 5, Body: io.NopCloser(io.MultiReader(strings.NewReader("12345"), failing{}))},
			"stream":  {Status: 200, Length: -1, Body: io.NopCloser(io.MultiReader(strings.NewReader("12345"), failing{}))},
			"nothing": {Status: 0},
		} {
			p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
				if r.Status != 0 && x.Client.Respond(&r) == nil {
					t.Errorf("%s: no error", name)
				}
			})))
			p.request(1, "/", true)
			if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeInternal {
				t.Errorf("%s: reset with %v", name, f.code)
			}
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, os.ErrInvalid }
