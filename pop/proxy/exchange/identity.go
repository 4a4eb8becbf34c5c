package exchange

import (
	"cmp"
	"net/netip"
	"strconv"
)

// RequestID is the field that carries an exchange's ID.
const RequestID = "X-Request-Id"

// maxRequestID bounds an ID taken over from a trusted hop, in bytes.
const maxRequestID = 128

// Identity is what an origin is told about where a request came from.
type Identity struct {
	Peer      netip.Addr // who sent the request to us
	Trusted   bool       // the peer is a hop of ours, so what it says is taken over
	Protocol  Protocol   // that it was received with
	Scheme    string     // that it was received with
	Authority string     // that it asked for; may be empty
	Port      uint16     // that it was received on
	ID        string     // to use unless a trusted hop brought one
	Arena     *Arena     // of the exchange; nil allocates
}

// Identify replaces what a request says about its origin by what we know, and
// returns the request's ID.
//
// Forwarded (RFC 7239), X-Forwarded-*, X-Real-IP, True-Client-IP, Client-Cert
// (RFC 9440), X-Request-Id and Anyedge-* are dropped, and so is any spelling
// that servers commonly read as one of them, such as X_Forwarded_For. Then
// Forwarded, X-Forwarded-For, -Proto, -Host and -Port and X-Request-Id are set,
// and Via is continued (RFC 9110, 7.6.3, asks that of a gateway).
//
// A trusted hop's fields stay: chains are continued with the hop itself, other
// fields are kept. Of Forwarded and X-Forwarded-For, if the hop sent only one,
// only that one goes on: a chain begun here would name the hop as the client
// and contradict the other.
func (f *Fields) Identify(id Identity) (requestID string) {
	var forwarded, forwardedFor, proto, host, port string
	requestID = id.ID
	if id.Trusted {
		forwarded, forwardedFor = f.Join("Forwarded"), f.Join("X-Forwarded-For")
		proto, host, port = f.Get("X-Forwarded-Proto"), f.Get("X-Forwarded-Host"), f.Get("X-Forwarded-Port")
		if v := f.Get(RequestID); saneID(v) {
			requestID = v
		}
	}
	via := f.Join("Via")
	f.DeleteFunc(func(x Field) bool {
		if EqualName(x.Name, "Via") {
			return true
		}
		return identifies(x.Name) && !(id.Trusted && keepTrusted(x.Name))
	})

	peer := id.Peer.WithZone("")
	if forwarded != "" || forwardedFor == "" {
		f.Add("Forwarded", id.Arena.Build(func(b []byte) []byte {
			return appendForwarded(appendChain(b, forwarded), peer, id.Authority, id.Scheme)
		}))
	}
	if forwardedFor != "" || forwarded == "" {
		f.Add("X-Forwarded-For", id.Arena.Build(func(b []byte) []byte {
			return peer.AppendTo(appendChain(b, forwardedFor))
		}))
	}
	f.Add("X-Forwarded-Proto", cmp.Or(proto, id.Scheme))
	if host = cmp.Or(host, id.Authority); host != "" {
		f.Add("X-Forwarded-Host", host)
	}
	if port == "" {
		port = id.Arena.Build(func(b []byte) []byte { return strconv.AppendUint(b, uint64(id.Port), 10) })
	}
	f.Add("X-Forwarded-Port", port)
	f.Add(RequestID, requestID)
	f.Add("Via", id.Arena.Build(func(b []byte) []byte {
		return append(append(appendChain(b, via), id.Protocol.Version()...), " anyedge"...)
	}))
	return requestID
}

// appendChain begins a list's next element.
func appendChain(b []byte, chain string) []byte {
	if chain == "" {
		return b
	}
	return append(append(b, chain...), ", "...)
}

// appendForwarded appends our own element of Forwarded (RFC 7239, 4).
func appendForwarded(b []byte, peer netip.Addr, authority, scheme string) []byte {
	b = append(b, "for="...)
	if peer.Is6() { // RFC 7239, 6: IPv6 is quoted and bracketed
		b = append(peer.AppendTo(append(b, `"[`...)), `]"`...)
	} else {
		b = peer.AppendTo(b)
	}
	if authority != "" {
		b = appendValue(append(b, ";host="...), authority)
	}
	return append(append(b, ";proto="...), scheme...)
}

// appendValue appends a token, or a quoted string if v is none (RFC 9110, 5.6).
func appendValue(b []byte, v string) []byte {
	if Token(v) {
		return append(b, v...)
	}
	b = append(b, '"')
	for i := range len(v) {
		if v[i] == '"' || v[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, v[i])
	}
	return append(b, '"')
}

// identifies reports whether a field, or a server that reads its name
// carelessly, says who a request comes from or is one of ours.
func identifies(name string) bool {
	// Gateways to CGI and its descendants map everything that is no letter or
	// digit to one character, so X_Forwarded.For reads as X-Forwarded-For.
	for _, exact := range []string{
		"Forwarded", "X-Real-IP", "True-Client-IP", "Client-Cert", "Client-Cert-Chain", RequestID,
	} {
		if len(name) == len(exact) && loosePrefix(name, exact) {
			return true
		}
	}
	return loosePrefix(name, "X-Forwarded-") || loosePrefix(name, "Anyedge-")
}

// keepTrusted reports whether an identifying field of a trusted hop goes on as
// it is: those that we neither set nor own, properly spelled.
func keepTrusted(name string) bool {
	for i := range len(name) {
		if c := lower(name[i]); !alphanumeric(c) && c != '-' {
			return false
		}
	}
	for _, ours := range []string{
		"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", RequestID,
	} {
		if EqualName(name, ours) {
			return false
		}
	}
	return !loosePrefix(name, "Anyedge-")
}

// loosePrefix reports whether name starts with prefix, taking all characters
// but letters and digits as the same.
func loosePrefix(name, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		a, b := lower(name[i]), lower(prefix[i])
		if a != b && (alphanumeric(a) || alphanumeric(b)) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func saneID(v string) bool {
	if v == "" || len(v) > maxRequestID {
		return false
	}
	for i := range len(v) {
		if c := lower(v[i]); !alphanumeric(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
