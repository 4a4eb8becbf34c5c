package http2

import (
	"strings"

	"anyedge/pop/proxy/exchange"
)

// Refusals of heads that are well formed. malformed stands for all others, whose
// streams are reset.
var (
	none            = exchange.Refusal{}
	malformed       = exchange.Refusal{Status: -1}
	refuseAuthority = exchange.Refusal{Status: 400, Reason: "no valid authority"}
	refuseExpect    = exchange.Refusal{Status: 417, Reason: "unknown expectation"}
	refuseURI       = exchange.Refusal{Status: 414, Reason: "the URI is too long"}
	refuseSize      = exchange.Refusal{Status: 431, Reason: "the header fields are too large"}
	refuseProtocol  = exchange.Refusal{Status: 501, Reason: "only WebSocket is connected to"}
)

// request makes r what the block asks for. maxURI bounds the path and query.
func (b *block) request(r *exchange.Request, maxURI int) exchange.Refusal {
	if b.malformed || b.selfDependent {
		return malformed
	}
	refused := refuseSize
	if !b.tooLarge() {
		refused = b.target()
	}
	if refused == malformed {
		return refused
	}
	*r = exchange.Request{
		Protocol: exchange.HTTP2, Method: b.method, Authority: b.authority, Path: b.path,
		Upgrade: b.protocol, AcceptsTrailers: b.hasTE,
	}
	if b.cookie != "" {
		b.fields.Add("cookie", b.cookie)
	}
	switch {
	case refused != none:
		return refused
	case len(b.path) > maxURI:
		return refuseURI
	}
	if b.expect != "" && !exchange.EqualName(b.expect, "100-continue") {
		return refuseExpect
	}
	if !b.end {
		r.Length = -1
	}
	if b.hasLength {
		n, ok := exchange.ParseLength(b.length)
		if !ok || b.end && n > 0 {
			return malformed // RFC 9113, 8.1.1
		}
		r.Length = n
	}
	return none
}

// target checks what the pseudo-header fields say together (RFC 9113, 8.3.1,
// and RFC 8441, 4).
func (b *block) target() exchange.Refusal {
	switch {
	case !b.hasMethod || !exchange.Token(b.method):
		return malformed
	case b.hasAuthority && b.hasHost && !strings.EqualFold(b.authority, b.host):
		return malformed
	case !b.hasAuthority:
		b.authority = b.host
	}
	if b.method == "CONNECT" && !b.hasProtocol {
		if b.hasScheme || b.hasPath || b.authority == "" {
			return malformed // RFC 9113, 8.5
		}
		return authorityRefusal(b.authority)
	}
	switch {
	case b.hasProtocol && b.method != "CONNECT":
		return malformed
	case b.scheme != "http" && b.scheme != "https":
		return malformed
	case !exchange.ValidPath(b.path) || b.path == "*" && b.method != "OPTIONS":
		return malformed
	case b.hasProtocol && b.protocol != "websocket":
		return refuseProtocol // RFC 9220, 3
	}
	return authorityRefusal(b.authority)
}

func authorityRefusal(authority string) exchange.Refusal {
	if !exchange.ValidAuthority(authority) {
		return refuseAuthority
	}
	return none
}
