package stdhttp

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strconv"
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
	defer conn.leave()

	x := &exchange.Exchange{Conn: conn.info, Client: c, Start: time.Now(), Request: exchange.Request{
		Protocol:  exchange.HTTP2,
		Method:    r.Method,
		Authority: r.Host,
		Path:      r.RequestURI,
		Fields:    fieldsOf(r.Header),
	}}
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
		// Cloned, for HPACK's dynamic table outlives the exchange.
		name := strings.Clone(textproto.CanonicalMIMEHeaderKey(field.Name))
		h[name] = append(h[name], strings.Clone(field.Value))
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
	complete bool         // the response was sent to its end
}

// Inform implements [exchange.Client].
func (c *client) Inform(status int, fields exchange.Fields) error {
	if status < 102 || status > 199 {
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
		h["Content-Length"] = []string{strconv.FormatInt(r.Length, 10)}
	}
	if r.Last {
		h["Connection"] = []string{"close"} // becomes GOAWAY
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
			h.Add(http.TrailerPrefix+field.Name, strings.Clone(field.Value))
		}
	}
	c.complete = true
	return nil
}

// Upgrade implements [exchange.Client]. HTTP/2 has none (RFC 9113, 8.6).
func (c *client) Upgrade(exchange.Fields) (exchange.Tunnel, error) {
	return nil, errors.New("HTTP/2 has no upgrade")
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
