package matrix

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// content is a body of n bytes that nobody can guess but who knows the seed.
func content(seed uint64, n int64) io.Reader {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// sum returns the checksum of all that is read, and how much it was.
func sum(r io.Reader) (text string, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// received is what an origin tells about a request that it has read.
type received struct {
	Method   string
	Target   string // as it came
	Host     string
	Protocol string
	Length   int64 // that was announced; -1 if none was
	Bytes    int64
	Sum      string
	Fields   http.Header
	Trailers http.Header
}

// reports carry what happens to a request at the origin to the check that sent
// it, by an id in the query.
type reports struct {
	mu  sync.Mutex
	ids map[string]chan string
}

var events reports

func (r *reports) of(id string) chan string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = make(map[string]chan string)
	}
	if r.ids[id] == nil {
		r.ids[id] = make(chan string, 8)
	}
	return r.ids[id]
}

// connKey finds an HTTP request's connection in its context.
type connKey struct{}

// servePlain serves checks over net/http.
func servePlain(t *testing.T, l net.Listener, secured *tls.Config, protocols *http.Protocols) {
	server := &http.Server{
		Handler: http.HandlerFunc(serveCheck), Protocols: protocols, TLSConfig: secured,
		ErrorLog:    log.New(io.Discard, "", 0), // broken connections are meant
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	var task sync.WaitGroup
	task.Go(func() {
		if secured != nil {
			server.ServeTLS(l, "", "")
		} else {
			server.Serve(l)
		}
	})
	t.Cleanup(func() {
		server.Close()
		task.Wait()
	})
}

func serveCheck(w http.ResponseWriter, r *http.Request) {
	w.Header()["Date"] = nil // so that lines can be compared
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(query.Get(key), 10, 64)
		return n
	}
	switch name {
	case "bytes":
		if query.Has("length") {
			w.Header().Set("Content-Length", query.Get("n"))
		}
		io.Copy(w, content(uint64(number("seed")), number("n")))
	case "received", "target":
		serveReceived(w, r)
	case "echo":
		serveEcho(w, r)
	case "early":
		for i := range 2 {
			w.Header().Set("Link", fmt.Sprintf("</style%d.css>; rel=preload", i))
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("Link")
		w.Header().Set("X-Final", "yes")
		io.WriteString(w, "after the hints")
	case "status":
		w.Header().Set("Etag", `"tag"`)
		if code := int(number("code")); code == http.StatusNotModified {
			w.Header().Set("Content-Length", "1234") // of what is not sent
			w.WriteHeader(code)
		} else {
			w.WriteHeader(code)
		}
	case "fields":
		for i := range manyFields {
			w.Header().Add("X-Many", fmt.Sprint(i))
			w.Header().Set(fmt.Sprintf("X-Line-%02d", i), fmt.Sprint(i))
		}
		for _, cookie := range cookies {
			w.Header().Add("Set-Cookie", cookie)
		}
		w.Header().Set("X-Empty", "")
		serveReceived(w, r)
	case "refuse":
		w.WriteHeader(http.StatusExpectationFailed) // the body was not read
	case "hang":
		serveHang(w, r)
	case "die":
		serveDeath(w, r)
	case "ws":
		serveWebSocket(w, r)
	default:
		http.NotFound(w, r)
	}
}

func serveReceived(w http.ResponseWriter, r *http.Request) {
	got := received{Method: r.Method, Target: r.RequestURI, Host: r.Host, Protocol: r.Proto, Length: r.ContentLength, Fields: r.Header}
	var err error
	if got.Sum, got.Bytes, err = sum(r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	got.Trailers = r.Trailer
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(got)
}

// serveEcho sends the body back while it comes. The trailers are its checksum,
// and what came as trailers.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).EnableFullDuplex() // fails on HTTP/2, which needs none
	w.Header().Set("Trailer", "X-Sum, X-Came, X-Twice")
	w.WriteHeader(http.StatusOK)
	text, _, err := sum(io.TeeReader(r.Body, w))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Sum", text)
	w.Header().Set("X-Came", r.Trailer.Get("X-Sent"))
	w.Header().Add("X-Twice", "one")
	w.Header().Add("X-Twice", "two")
}

// serveHang answers as far as it is asked to, then waits until the client is
// gone, and reports that.
func serveHang(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	event := events.of(query.Get("id"))
	event <- "came"
	if query.Has("head") {
		io.WriteString(w, "the beginning")
		http.NewResponseController(w).Flush()
	}
	if query.Has("body") {
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			event <- fmt.Sprintf("a body of %d bytes passed for complete", n)
			return
		}
	} else {
		<-r.Context().Done()
	}
	event <- "gone"
}

// serveDeath breaks off in mid-body: the stream, or the whole connection.
func serveDeath(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Has("length") {
		w.Header().Set("Content-Length", strconv.Itoa(2*deathSize))
	}
	io.Copy(w, content(1, deathSize))
	http.NewResponseController(w).Flush()
	if query.Has("cut") {
		conn := r.Context().Value(connKey{}).(net.Conn)
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn()
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	panic(http.ErrAbortHandler)
}

const (
	deathSize  = 100 << 10
	manyFields = 40
)

var cookies = []string{"a=1; Path=/", "b=2", "a=3; Secure"}
