package stdhttp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// serve is the http.Handler of a front.
func (f *Front) serve(w http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(servedKey{}).(*served)
	if !conn.enter() {
		panic(http.ErrAbortHandler)
	}
	c := &client{front: f, conn: conn, w: w, rc: http.NewResponseController(w), r: r}
	defer func() {
		conn.leave()
		if c.hijacked {
			conn.end()
		}
	}()

	x := &exchange.Exchange{Conn: conn.info, Client: c, Start: time.Now(), Request: exchange.Request{
		Protocol:  exchange.HTTP10,
		Method:    r.Method,
		Authority: r.Host,
		Path:      originForm(r.RequestURI),
		Fields:    fieldsOf(r.Header),
	}}
	switch {
	case r.ProtoMajor == 2:
		x.Request.Protocol = exchange.HTTP2
	case r.ProtoAtLeast(1, 1):
		x.Request.Protocol = exchange.HTTP11
		// Without this, net/http would read the request's body away before it
		// sends the response's head.
		c.rc.EnableFullDuplex()
	}
	if r.ContentLength != 0 && r.Body != http.NoBody {
		c.body = newRequestBody(c)
		x.Request.Length, x.Request.Body, x.Request.Trailers = r.ContentLength, c.body, &c.body.trailers
	}
	f.config.Handler(r.Context(), x)
	if c.body != nil {
		c.body.Close()
	}
	if !c.complete {
		panic(http.ErrAbortHandler) // the documented way to break a message off
	}
}

// originForm returns path and query of a request target as received: an
// absolute-form target (RFC 9112, 3.2.2) without its scheme and authority.
func originForm(target string) string {
	if strings.HasPrefix(target, "/") || target == "*" {
		return target
	}
	_, rest, found := strings.Cut(target, "://")
	if !found {
		return target
	}
	end := strings.IndexAny(rest, "/?")
	switch {
	case end < 0:
		return "/"
	case rest[end] == '?':
		return "/" + rest[end:]
	}
	return rest[end:]
}

// fieldsOf returns the lines of h sorted by name, without framing.
func fieldsOf(h http.Header) exchange.Fields {
	names := make([]string, 0, len(h))
	lines := 0
	for name, values := range h {
		if name != "Content-Length" && name != "Host" {
			names = append(names, name)
			lines += len(values)
		}
	}
	slices.Sort(names)
	fields := make(exchange.Fields, 0, lines+8) // and some of our own
	for _, name := range names {
		for _, value := range h[name] {
			fields.Add(name, value)
		}
	}
	return fields
}

// addTo adds fields to h.
func addTo(h http.Header, fields exchange.Fields) {
	for _, field := range fields {
		name := textproto.CanonicalMIMEHeaderKey(field.Name)
		h[name] = append(h[name], field.Value)
	}
}

// client is the way back to the client of one exchange.
type client struct {
	front    *Front
	conn     *served
	w        http.ResponseWriter
	rc       *http.ResponseController
	r        *http.Request
	body     *requestBody // nil if there is none
	complete bool         // the response was sent to its end, or the connection hijacked
	hijacked bool
}

// Inform implements [exchange.Client].
func (c *client) Inform(status int, fields exchange.Fields) error {
	if !c.r.ProtoAtLeast(1, 1) || status < 102 || status > 199 {
		return nil
	}
	h := c.w.Header()
	addTo(h, fields)
	c.rc.SetWriteDeadline(time.Now().Add(c.front.config.BodyIdle))
	c.w.WriteHeader(status) // flushes; Flush would begin the final response
	clear(h)
	return nil
}

// pieceSize is how much of a body is copied at once, in bytes.
const pieceSize = 32 << 10

// pieces are buffers for copying bodies.
var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// Respond implements [exchange.Client].
func (c *client) Respond(r *exchange.Response) error {
	h := c.w.Header()
	addTo(h, r.Fields)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // do not guess one
	}
	if r.Length >= 0 {
		h["Content-Length"] = []string{formatLength(r.Length)}
	}
	if r.Last || c.body != nil && !c.body.ended.Load() && c.r.ProtoMajor == 1 {
		// Becomes GOAWAY on HTTP/2. Where the request's body is still under
		// way, the connection could not be used for another request.
		h["Connection"] = []string{"close"}
	}
	deadline := func() { c.rc.SetWriteDeadline(time.Now().Add(c.front.config.BodyIdle)) }
	deadline()
	c.w.WriteHeader(r.Status)
	if r.Body == nil || c.r.Method == http.MethodHead {
		c.complete = true
		return nil
	}

	if r.Length < 0 || r.Length > pieceSize {
		// A stream's head must not wait for its first piece. That of a short
		// body goes out with it.
		if err := c.rc.Flush(); err != nil {
			return err
		}
	}
	piece := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(piece)
	for ended := false; !ended; {
		n, err := r.Body.Read(piece[:])
		ended = err == io.EOF
		if err != nil && !ended {
			return err
		}
		deadline()
		if n > 0 {
			if _, err := c.w.Write(piece[:n]); err != nil {
				return err
			}
		}
		if !ended {
			// What the origin sends is passed on at once: it may be an event
			// that the client waits for.
			if err := c.rc.Flush(); err != nil {
				return err
			}
		}
	}
	if r.Trailers != nil {
		for _, field := range *r.Trailers {
			if !exchange.TrailerAllowed(field.Name) {
				continue
			}
			h.Add(http.TrailerPrefix+field.Name, field.Value)
		}
	}
	c.complete = true
	return nil
}

// Upgrade implements [exchange.Client].
func (c *client) Upgrade(fields exchange.Fields) (exchange.Tunnel, error) {
	if c.r.ProtoMajor != 1 {
		return nil, errors.New("HTTP/2 has no upgrade") // RFC 9113, 8.6
	}
	conn, buffered, err := c.rc.Hijack()
	if err != nil {
		return nil, err
	}
	c.hijacked, c.complete = true, true
	conn.SetDeadline(time.Time{})
	head := http.Header{"Connection": {"Upgrade"}, "Upgrade": {c.r.Header.Get("Upgrade")}}
	addTo(head, fields)
	conn.SetWriteDeadline(time.Now().Add(c.front.config.BodyIdle))
	buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	head.Write(buffered)
	buffered.WriteString("\r\n")
	if err := buffered.Flush(); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetWriteDeadline(time.Time{})
	return &tunnel{Conn: conn, early: buffered.Reader}, nil
}

// tunnel is a hijacked client connection.
type tunnel struct {
	net.Conn
	early *bufio.Reader // what net/http had read ahead; nil when taken
}

// Read implements [io.Reader].
func (t *tunnel) Read(p []byte) (int, error) {
	if t.early != nil {
		if n := t.early.Buffered(); n > 0 {
			return t.early.Read(p[:min(n, len(p))])
		}
		t.early = nil
	}
	return t.Conn.Read(p)
}

// CloseWrite implements [exchange.Tunnel].
func (t *tunnel) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return t.Close()
}

// requestBody is the body of a client's request.
type requestBody struct {
	client   *client
	trailers exchange.Fields
	ended    atomic.Bool // io.EOF was returned
	closed   atomic.Bool

	mu sync.Mutex // held while net/http's body is used
}

func newRequestBody(c *client) *requestBody {
	b := &requestBody{client: c}
	for name := range c.r.Trailer {
		b.trailers.Add(name, "")
	}
	return b
}

// Read waits for the next piece for the front's BodyIdle at most, then returns
// [os.ErrDeadlineExceeded].
func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rc := b.client.rc
	rc.SetReadDeadline(time.Now().Add(b.client.front.config.BodyIdle))
	if b.closed.Load() { // asked after the deadline was set, see Close
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.client.r.Body.Read(p)
	switch {
	case err == io.EOF:
		// From here on net/http waits for the connection's end, for ever.
		rc.SetReadDeadline(time.Time{})
		b.trailers = fieldsOf(b.client.r.Trailer)
		b.ended.Store(true)
	case err != nil && errors.Is(err, os.ErrDeadlineExceeded) && b.closed.Load():
		err = http.ErrBodyReadAfterClose
	}
	return n, err
}

// Close implements [exchange.Request].Body.
func (b *requestBody) Close() error {
	if b.closed.Swap(true) || b.ended.Load() {
		return nil
	}
	// A Read under way comes back at once; one that set its deadline after this
	// one has not asked closed yet.
	b.client.rc.SetReadDeadline(time.Unix(1, 0))
	b.mu.Lock()
	defer b.mu.Unlock()
	// After a response, net/http reads some of what is under way, lest a reset
	// destroys the response on its way to the client.
	b.client.rc.SetReadDeadline(time.Now().Add(lingerTimeout))
	return nil
}

// lingerTimeout bounds the wait for the rest of a body that nobody wants.
const lingerTimeout = time.Second
