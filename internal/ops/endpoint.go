package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// maxBody bounds the body of a request.
	maxBody = 1 << 20
	// endpointTimeout bounds one call of an endpoint.
	endpointTimeout = 30 * time.Second
)

// An Endpoint is one call of the API.
type Endpoint struct {
	// Method is GET, POST, PUT or DELETE. A GET must change nothing; it answers
	// HEAD as well.
	Method string
	// Path is a pattern of http.ServeMux without method and host, such as
	// "/v1/drain" or "/v1/pools/{name}".
	Path string
	// Doc is one line for the index.
	Doc string
	// Handle answers a request. What it returns is sent as JSON; nil is sent as
	// 204 with no body. An error that is or wraps an [*Error] decides the
	// status, any other is a 500; its message is sent either way. The context
	// ends with the request, with the server, or after 30 seconds.
	Handle func(ctx context.Context, r Request) (any, error)
}

// A Request is what an endpoint learns of a request.
type Request struct {
	// Remote is the client's address; the zero value if it is not known.
	Remote netip.AddrPort
	http   *http.Request
}

// Param returns the part of the path that matched {name}, or "".
func (r Request) Param(name string) string { return r.http.PathValue(name) }

// Query returns the first value of a query parameter, or "".
func (r Request) Query(name string) string { return r.http.URL.Query().Get(name) }

// Decode reads the body, one JSON value, into v. Fields that v does not have, a
// second value and more than 1 MiB are refused. The error is one to return.
func (r Request) Decode(v any) error {
	d := json.NewDecoder(r.http.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		switch _, err = d.Token(); err {
		case io.EOF:
			return nil
		case nil:
			err = errors.New("more than one value")
		}
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return newError(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if errors.Is(err, io.EOF) {
		return BadRequest("the body is empty, a JSON value is needed")
	}
	return BadRequest("body: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// resource is the handler of all endpoints of one path, by method.
type resource struct {
	log     *slog.Logger
	methods map[string]Endpoint
}

func (res *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	e, ok := res.methods[method]
	if !ok {
		refuseMethod(w, r, res.allow())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), endpointTimeout)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	v, err := e.Handle(ctx, Request{remote(r), r})
	if err == nil {
		err = writeJSON(w, http.StatusOK, v)
	}
	if err == nil {
		return
	}
	if known := (*Error)(nil); !errors.As(err, &known) && r.Context().Err() == nil {
		res.log.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	writeError(w, err)
}

// allow lists the methods of the resource (RFC 9110 section 10.2.1).
func (res *resource) allow() string {
	var methods []string
	for m := range res.methods {
		methods = append(methods, m)
		if m == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// readOnly refuses requests that would change something.
func readOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			refuseMethod(w, r, "GET, HEAD")
			return
		}
		h(w, r)
	})
}

// refuseMethod answers 405 with the methods there are (RFC 9110 section 15.5.6).
func refuseMethod(w http.ResponseWriter, r *http.Request, allowed string) {
	w.Header().Set("Allow", allowed)
	writeError(w, newError(http.StatusMethodNotAllowed, "%s does not take %s, only %s", r.URL.Path, r.Method, allowed))
}

// remote returns the address at the other end of the connection.
func remote(r *http.Request) netip.AddrPort {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// writeJSON sends v, indented for people, or 204 for nil. On error nothing has
// been sent: v is no JSON.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	if v == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // nobody may take this for HTML: nosniff
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error means that the client is gone, and it alone has lost something.
	_, _ = w.Write(body.Bytes())
	return nil
}

// errorBody is the body of every answer that is an error.
type errorBody struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if e := (*Error)(nil); errors.As(err, &e) {
		status = e.Status
	}
	// A struct of one string is always JSON.
	_ = writeJSON(w, status, errorBody{err.Error()})
}
