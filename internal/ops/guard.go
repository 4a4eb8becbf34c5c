package ops

import (
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// guard is in front of every request: it refuses what a browser may have been
// talked into, sets the security fields, and writes a line for every request
// that could change something.
type guard struct {
	log         *slog.Logger
	crossOrigin http.CrossOriginProtection
	next        http.Handler
}

// contentPolicy lets an answer do nothing in a browser; a page sets its own.
const contentPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")

	if safe(r.Method) {
		g.serve(w, r)
		return
	}
	start := time.Now()
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	g.serve(rec, r)
	g.log.Info("admin request", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr,
		"status", rec.status, "duration", time.Since(start))
}

func (g *guard) serve(w http.ResponseWriter, r *http.Request) {
	if err := g.check(r); err != nil {
		writeError(w, err)
		return
	}
	g.next.ServeHTTP(w, r)
}

// check returns why a request is refused.
func (g *guard) check(r *http.Request) error {
	if !literalHost(r.Host) {
		return newError(http.StatusForbidden, "host %q is neither an IP address nor localhost", r.Host)
	}
	if strings.HasPrefix(r.URL.Path, "/debug/") && !remote(r).Addr().IsLoopback() {
		return newError(http.StatusForbidden, "%s is there only for clients on the same host", r.URL.Path)
	}
	if safe(r.Method) {
		if foreign(r) {
			return newError(http.StatusForbidden, "another site made this request")
		}
		return nil
	}
	if err := g.crossOrigin.Check(r); err != nil {
		return newError(http.StatusForbidden, "%w", err)
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return newError(http.StatusUnsupportedMediaType, "%s needs Content-Type: application/json", r.Method)
	}
	return nil
}

// safe reports whether a method changes nothing (RFC 9110 section 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// literalHost reports whether a Host field holds an IP address or localhost,
// with or without a port.
func literalHost(host string) bool {
	if _, err := netip.ParseAddrPort(host); err == nil {
		return true
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6()
	}
	name, port, _ := strings.Cut(host, ":")
	if strings.Trim(port, "0123456789") != "" {
		return false
	}
	addr, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || err == nil && addr.Is4()
}

// foreign reports whether a browser says that another site made it send the
// request, other than by a link that opens a page of its own. The answer would
// not reach that site, but the work (a profile, a scrape) would be done.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find the writer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
