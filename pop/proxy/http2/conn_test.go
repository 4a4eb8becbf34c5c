package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"anyedge/pop/proxy/exchange"
)

func TestMalformed(t *testing.T) {
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a.example"}
	connect := []string{":method", "CONNECT", ":scheme", "https", ":path", "/", ":authority", "a.example"}
	with := func(base []string, more ...string) []string { return append(append([]string(nil), base...), more...) }
	without := func(name string) (fields []string) {
		for i := 0; i < len(get); i += 2 {
			if get[i] != name {
				fields = append(fields, get[i], get[i+1])
			}
		}
		return fields
	}
	replace := func(name, value string) []string { return append([]string{name, value}, without(name)...) }
	for name, test := range map[string]struct {
		fields []string
		status string // empty for a reset
	}{
		"well formed":              {get, "200"},
		"no method":                {without(":method"), ""},
		"method no token":          {replace(":method", "G T"), ""},
		"no scheme":                {without(":scheme"), ""},
		"strange scheme":           {replace(":scheme", "ftp"), ""},
		"no path":                  {without(":path"), ""},
		"empty path":               {replace(":path", ""), ""},
		"relative path":            {replace(":path", "a"), ""},
		"absolute path form":       {replace(":path", "http://a.example/"), ""},
		"path with space":          {replace(":path", "/a b"), ""},
		"path with fragment":       {replace(":path", "/a#b"), ""},
		"asterisk for GET":         {replace(":path", "*"), ""},
		"asterisk for OPTIONS":     {with(replace(":path", "*")[0:2], ":method", "OPTIONS", ":scheme", "https", ":authority", "a.example"), "200"},
		"no authority":             {without(":authority"), "400"},
		"host only":                {with(without(":authority"), "host", "a.example"), "200"},
		"host agrees":              {with(get, "host", "A.example"), "200"},
		"host differs":             {with(get, "host", "b.example"), ""},
		"two hosts":                {with(without(":authority"), "host", "a", "host", "b"), ""},
		"empty host":               {with(without(":authority"), "host", ""), "400"},
		"user information":         {replace(":authority", "u@a.example"), "400"},
		"authority with slash":     {replace(":authority", "a/b"), "400"},
		"pseudo twice":             {with(get, ":path", "/b")[:10], ""},
		"pseudo after field":       {[]string{":method", "GET", "a", "b", ":scheme", "https", ":path", "/", ":authority", "a"}, ""},
		"response pseudo":          {with([]string{":status", "200"}, get...), ""},
		"unknown pseudo":           {with([]string{":x", "y"}, get...), ""},
		"upper case":               {with(get, "Accept", "x"), ""},
		"empty name":               {with(get, "", "x"), ""},
		"name with space":          {with(get, "a b", "x"), ""},
		"name with colon":          {with(get, "a:b", "x"), ""},
		"value with NUL":           {with(get, "a", "x\x00y"), ""},
		"value with CR":            {with(get, "a", "x\ry"), ""},
		"value with LF":            {with(get, "a", "x\ny"), ""},
		"value with DEL":           {with(get, "a", "x\x7fy"), ""},
		"leading space":            {with(get, "a", " x"), ""},
		"trailing tab":             {with(get, "a", "x\t"), ""},
		"inner tab":                {with(get, "a", "x\ty"), "200"},
		"connection":               {with(get, "connection", "close"), ""},
		"keep-alive":               {with(get, "keep-alive", "1"), ""},
		"proxy-connection":         {with(get, "proxy-connection", "close"), ""},
		"transfer-encoding":        {with(get, "transfer-encoding", "chunked"), ""},
		"upgrade":                  {with(get, "upgrade", "websocket"), ""},
		"te trailers":              {with(get, "te", "trailers"), "200"},
		"te gzip":                  {with(get, "te", "gzip"), ""},
		"te list":                  {with(get, "te", "trailers, deflate"), ""},
		"content-length":           {with(get, "content-length", "5"), ""},
		"content-length zero":      {with(get, "content-length", "0"), "200"},
		"content-length signed":    {with(get, "content-length", "+0"), ""},
		"content-lengths":          {with(get, "content-length", "0", "content-length", "00"), ""},
		"content-length list":      {with(get, "content-length", "0, 0"), ""},
		"content-length overflows": {with(get, "content-length", "99999999999999999999"), ""},
		"expectation":              {with(get, "expect", "wonders"), "417"},
		"too large":                {with(get, slices.Repeat([]string{"a", strings.Repeat("x", 1000)}, 40)...), "431"},
		"CONNECT":                  {[]string{":method", "CONNECT", ":authority", "a.example:443"}, "200"},
		"CONNECT with path":        {connect, ""},
		"CONNECT to nowhere":       {[]string{":method", "CONNECT"}, ""},
		"protocol without CONNECT": {with([]string{":protocol", "websocket"}, get...), ""},
		"unknown protocol":         {with([]string{":protocol", "webtransport"}, connect...), "501"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := greeted(t, NewFront(config(testServer)))
				p.raw(1, true, test.fields...)
				if test.status == "" {
					if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeProtocol {
						t.Fatalf("reset with %v", f.code)
					}
				} else if status, _ := p.response(1); status != test.status {
					t.Fatalf("status %s, want %s", status, test.status)
				}
				// The connection goes on.
				p.request(3, "/", true)
				if status, _ := p.response(3); status != "200" {
					t.Fatalf("then status %s", status)
				}
			})
		})
	}
}

// What an exchange is told of a request.
func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan exchange.Request, 1)
		p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
			r := x.Request
			announced := append(exchange.Fields(nil), *r.Trailers...)
			body, _ := io.ReadAll(r.Body)
			late := append(exchange.Fields(nil), *r.Trailers...)
			r.Fields = append(append(append(exchange.Fields(nil), r.Fields...), announced...), late...)
			r.Path += "|" + string(body)
			got <- r
			respond(x, 204, -1, nil)
		})))
		p.request(1, "/a?b", false, "host", "a.example", "cookie", "a=1", "x", "1", "cookie", "b=2", "te", "trailers",
			"content-length", "4", "trailer", "x-sum, content-length")
		p.framer.WriteDataPadded(1, false, []byte("bo"), make([]byte, 200))
		p.framer.WriteData(1, false, []byte("dy"))
		p.raw(1, true, "x-sum", "7", "content-length", "1")
		r := <-got
		want := exchange.Request{Protocol: exchange.HTTP2, Method: "POST", Authority: "a.example", Path: "/a?b|body", Length: 4, AcceptsTrailers: true}
		if r.Protocol != want.Protocol || r.Method != want.Method || r.Authority != want.Authority || r.Path != want.Path ||
			r.Length != want.Length || r.AcceptsTrailers != want.AcceptsTrailers || r.Upgrade != "" {
			t.Errorf("request %+v", r)
		}
		var fields []string
		for _, f := range r.Fields {
			fields = append(fields, f.Name+"="+f.Value)
		}
		if got, want := strings.Join(fields, " "), "x=1 te=trailers cookie=a=1; b=2 x-sum= x-sum=7"; got != want {
			t.Errorf("fields %s, want %s", got, want)
		}
		if status, _ := p.response(1); status != "204" {
			t.Error(status)
		}
	})
}

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

func TestBodyLength(t *testing.T) {
	for name, test := range map[string]struct {
		declared string
		send     func(p *peer)
	}{
		"more":            {"3", func(p *peer) { p.framer.WriteData(1, false, []byte("body")) }},
		"less":            {"5", func(p *peer) { p.framer.WriteData(1, true, []byte("body")) }},
		"less, trailers":  {"5", func(p *peer) { p.framer.WriteData(1, false, []byte("body")); p.raw(1, true, "a", "b") }},
		"pseudo trailers": {"4", func(p *peer) { p.framer.WriteData(1, false, []byte("body")); p.raw(1, true, ":path", "/") }},
		"trailers go on":  {"4", func(p *peer) { p.framer.WriteData(1, false, []byte("body")); p.raw(1, false, "a", "b") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read := make(chan error, 1)
				p := greeted(t, NewFront(config(func(_ context.Context, x *exchange.Exchange) {
					_, err := io.ReadAll(x.Request.Body)
					read <- err
				})))
				p.request(1, "/", false, "content-length", test.declared)
				test.send(p)
				if f := p.expect(h2.FrameRSTStream, 1); f.code != h2.ErrCodeProtocol {
					t.Errorf("reset with %v", f.code)
				}
				if err := <-read; !errors.Is(err, exchange.ErrMalformed) {
					t.Errorf("the handler read: %v", err)
				}
			})
		})
	}
}

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
		if held := chunks.inUse.Load() * chunkSize; held != streamWindow {
			t.Errorf("%d bytes are held, want %d", held, streamWindow)
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
		p.request(5, "/", true) // is not served, and the client knows
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
