package demo

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what one request may ask for.
const (
	// MaxBytes bounds n of /bytes, and the body of any request.
	MaxBytes = 1 << 30
	// MaxSlow bounds ms of /slow.
	MaxSlow = 60 * time.Second
)

const tooLarge = "the body is larger than 1 GiB"

//go:embed echo.proto
var echoProto []byte

func newHandler(s *Server) *handler { return &handler{server: s, grpc: newGRPC()} }

// ServeHTTP implements [http.Handler]. It is no [http.ServeMux], because that
// redirects unclean paths, and this server is to show what it received.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.server
	w.Header().Set(NameField, s.Name)
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		h.grpc.ServeHTTP(w, r)
		return
	}
	if r.ContentLength > MaxBytes {
		refuse(w, http.StatusRequestEntityTooLarge, tooLarge)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBytes)
	switch r.URL.Path {
	case "/whoami":
		s.whoami(w)
	case "/slow":
		s.slow(w, r)
	case "/bytes":
		s.bytes(w, r)
	case "/status":
		s.status(w, r)
	case "/healthz":
		s.healthz(w, r)
	case "/ws":
		s.webSocket(w, r)
	case "/echo.proto":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write(echoProto)
	default:
		s.echo(w, r)
	}
}

// Received is what "/" answers: a request as it reached the origin.
type Received struct {
	Origin Identity `json:"origin"`
	Method string   `json:"method"`
	// Target is the request target as it was sent (RFC 9112 Section 3.2).
	Target   string `json:"target"`
	Protocol string `json:"protocol"`
	TLS      bool   `json:"tls"`
	// Host is the Host field or the :authority pseudo-header.
	Host string `json:"host"`
	// Fields are sorted by name, which is in canonical form. Those of one name
	// keep their order, the only one that means something (RFC 9110 Section 5.3).
	Fields []Field `json:"fields"`
	// Trailers likewise.
	Trailers []Field `json:"trailers,omitempty"`
	// RemoteAddress is the ip:port at the other end of the connection.
	RemoteAddress string `json:"remote_address"`
	// BodyBytes and BodySHA256 tell what the body was.
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256"`
}

// Field is one header or trailer field line.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		refuse(w, http.StatusRequestEntityTooLarge, tooLarge)
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, fmt.Sprintf("read body: %v", err))
		return
	}
	writeJSON(w, Received{
		Origin:        Identity{s.Name, s.Region},
		Method:        r.Method,
		Target:        r.RequestURI,
		Protocol:      r.Proto,
		TLS:           r.TLS != nil,
		Host:          r.Host,
		Fields:        fields(r.Header),
		Trailers:      fields(r.Trailer),
		RemoteAddress: r.RemoteAddr,
		BodyBytes:     n,
		BodySHA256:    hex.EncodeToString(sum.Sum(nil)),
	})
}

func fields(h http.Header) []Field {
	list := []Field{}
	for name, values := range h {
		for _, v := range values {
			list = append(list, Field{name, v})
		}
	}
	slices.SortStableFunc(list, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (s *Server) whoami(w http.ResponseWriter) { writeJSON(w, Identity{s.Name, s.Region}) }

func (s *Server) slow(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 0, MaxSlow.Milliseconds())
	if !ok {
		return
	}
	wait := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer wait.Stop()
	select {
	case <-wait.C:
		s.whoami(w)
	case <-r.Context().Done(): // the client has gone
	}
}

func (s *Server) bytes(w http.ResponseWriter, r *http.Request) {
	n, ok := number(w, r, "n", 0, MaxBytes)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if r.Method != http.MethodHead {
		io.Copy(w, Content(n)) // fails when the client has gone
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if code, ok := number(w, r, "code", 200, 599); ok {
		w.WriteHeader(int(code))
	}
}

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		state := r.URL.Query().Get("state")
		if state != "up" && state != "down" {
			refuse(w, http.StatusBadRequest, "state must be up or down")
			return
		}
		s.SetHealthy(state == "up")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		refuse(w, http.StatusMethodNotAllowed, "GET, HEAD or POST")
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if !s.Healthy() {
		refuse(w, http.StatusServiceUnavailable, "down")
		return
	}
	io.WriteString(w, "up\n")
}

// number returns a query parameter, or answers 400 and returns false.
func number(w http.ResponseWriter, r *http.Request, name string, low, high int64) (int64, bool) {
	v, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil || v < low || v > high {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("%s must be a whole number from %d to %d", name, low, high))
		return 0, false
	}
	return v, true
}

func refuse(w http.ResponseWriter, code int, why string) { http.Error(w, why, code) }

func writeJSON(w http.ResponseWriter, v any) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("demo: encode %T: %v", v, err)) // plain structs of strings and numbers
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	w.Write(out.Bytes())
}
