package http1

import (
	"strconv"
	"sync/atomic"
	"time"

	"anyedge/pop/proxy/exchange"
)

// appendHead appends a response's head.
func (t *turn) appendHead(b []byte, r *exchange.Response, k kind) []byte {
	b = appendStatus(b, t.x.Request.Protocol, r.Status)
	b = appendFields(b, r.Fields)
	if !r.Fields.Has("Date") {
		b = appendField(b, "Date", date(time.Now())) // RFC 9110, 6.6.1
	}
	switch {
	case k == chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		b = appendAnnounced(b, r.Trailers)
	case r.Status == 204: // RFC 9110, 8.6: none
	case k == fixed || r.Length >= 0:
		b = appendLength(b, max(r.Length, 0))
	}
	switch {
	case !t.keep:
		b = append(b, "Connection: close\r\n"...)
	case t.x.Request.Protocol == exchange.HTTP10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendStatus appends the status line. Clients of HTTP/1.0 are answered with
// their own version: some look at it before they look at Connection.
func appendStatus(b []byte, version exchange.Protocol, status int) []byte {
	if version == exchange.HTTP10 {
		b = append(b, "HTTP/1.0 "...)
	} else {
		b = append(b, "HTTP/1.1 "...)
	}
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reason(status)...)
	return append(b, "\r\n"...)
}

func appendFields(b []byte, fields exchange.Fields) []byte {
	for i := range fields {
		b = appendField(b, fields[i].Name, fields[i].Value)
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// appendAnnounced appends the names of trailers that will come (RFC 9110,
// 6.6.2).
func appendAnnounced(b []byte, trailers *exchange.Fields) []byte {
	if trailers == nil {
		return b
	}
	start := len(b)
	for _, field := range *trailers {
		if !exchange.TrailerAllowed(field.Name) {
			continue
		}
		if len(b) == start {
			b = append(b, "Trailer: "...)
		} else {
			b = append(b, ", "...)
		}
		b = append(b, field.Name...)
	}
	if len(b) > start {
		b = append(b, "\r\n"...)
	}
	return b
}

// dated is a second in the form of Date.
type dated struct {
	unix int64
	text string
}

var lastDate atomic.Pointer[dated]

// date returns now as in Date (RFC 9110, 5.6.7). It is formatted once a second.
func date(now time.Time) string {
	if d := lastDate.Load(); d != nil && d.unix == now.Unix() {
		return d.text
	}
	d := &dated{now.Unix(), now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
	lastDate.Store(d)
	return d.text
}

// reason returns the phrase of a status (RFC 9110, 15). It says nothing that
// the number does not, and may be empty.
func reason(status int) string {
	switch status {
	case 100:
		return "Continue"
	case 101:
		return "Switching Protocols"
	case 103:
		return "Early Hints"
	case 200:
		return "OK"
	case 201:
		return "Created"
	case 202:
		return "Accepted"
	case 204:
		return "No Content"
	case 206:
		return "Partial Content"
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 303:
		return "See Other"
	case 304:
		return "Not Modified"
	case 307:
		return "Temporary Redirect"
	case 308:
		return "Permanent Redirect"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 409:
		return "Conflict"
	case 410:
		return "Gone"
	case 412:
		return "Precondition Failed"
	case 413:
		return "Content Too Large"
	case 414:
		return "URI Too Long"
	case 415:
		return "Unsupported Media Type"
	case 416:
		return "Range Not Satisfiable"
	case 417:
		return "Expectation Failed"
	case 421:
		return "Misdirected Request"
	case 422:
		return "Unprocessable Content"
	case 425:
		return "Too Early"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	}
	return ""
}
