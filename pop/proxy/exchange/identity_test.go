package exchange

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestIdentify(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	client := Identity{Peer: v4, Protocol: HTTP11, Scheme: "https", Authority: "shop.example", Port: 443, ID: "own"}
	hop := client
	hop.Trusted = true
	with := func(id Identity, change func(*Identity)) Identity { change(&id); return id }

	set := func(forwarded, xff, proto, host, port, id, via string) Fields {
		var f Fields
		for _, x := range []Field{
			{"Forwarded", forwarded}, {"X-Forwarded-For", xff}, {"X-Forwarded-Proto", proto},
			{"X-Forwarded-Host", host}, {"X-Forwarded-Port", port}, {RequestID, id}, {"Via", via},
		} {
			if x.Value != "" {
				f = append(f, x)
			}
		}
		return f
	}
	plain := set("for=192.0.2.7;host=shop.example;proto=https", "192.0.2.7", "https", "shop.example", "443", "own", "1.1 anyedge")

	tests := []struct {
		name string
		id   Identity
		in   Fields
		want Fields
	}{
		{"nothing sent", client, nil, plain},
		{"untrusted fields are dropped", client, Fields{
			{"Forwarded", "for=6.6.6.6"}, {"X-Forwarded-For", "6.6.6.6"}, {"x-forwarded-proto", "ftp"},
			{"X-Forwarded-Host", "evil"}, {"X-Forwarded-Port", "1"}, {"X-Forwarded-Prefix", "/x"}, {"X-Forwarded-Anything", "x"},
			{"X-Real-IP", "6.6.6.6"}, {"True-Client-IP", "6.6.6.6"}, {"Client-Cert", ":AA==:"}, {"Client-Cert-Chain", ":AA==:"},
			{"X-Request-ID", "evil"}, {"Anyedge-Probe", "evil"}, {"anyedge-generation", "1"},
		}, plain},
		{"spellings are dropped", client, Fields{
			{"X_Forwarded_For", "6.6.6.6"}, {"x-forwarded_for", "6.6.6.6"}, {"X.Forwarded.Proto", "x"},
			{"X_Real_IP", "6.6.6.6"}, {"Client_Cert", ":AA==:"}, {"x_request_id", "evil"}, {"anyedge_probe", "x"},
		}, plain},
		{"neighbours stay", client, Fields{
			{"X-Forwarded", "a"}, {"X-Real-IPs", "b"}, {"Forwarded-For", "c"}, {"XForwardedFor", "d"}, {"anyedge", "e"},
		}, append(Fields{
			{"X-Forwarded", "a"}, {"X-Real-IPs", "b"}, {"Forwarded-For", "c"}, {"XForwardedFor", "d"}, {"anyedge", "e"},
		}, plain...)},
		{"IPv6, port in host, HTTP/2", with(client, func(id *Identity) {
			id.Peer, id.Authority, id.Port, id.Protocol = v6, "shop.example:8443", 8443, HTTP2
		}), nil, set(`for="[2001:db8::7]";host="shop.example:8443";proto=https`, "2001:db8::7", "https", "shop.example:8443",
			"8443", "own", "2.0 anyedge")},
		{"a zone stays here", with(client, func(id *Identity) { id.Peer = netip.MustParseAddr("fe80::1%eth0") }), nil,
			set(`for="[fe80::1]";host=shop.example;proto=https`, "fe80::1", "https", "shop.example", "443", "own", "1.1 anyedge")},
		{"no host", with(client, func(id *Identity) { id.Authority, id.Protocol, id.Scheme = "", HTTP10, "http" }), nil,
			set("for=192.0.2.7;proto=http", "192.0.2.7", "http", "", "443", "own", "1.0 anyedge")},
		{"quotes in host", with(client, func(id *Identity) { id.Authority = `a"\b` }), nil,
			set(`for=192.0.2.7;host="a\"\\b";proto=https`, "192.0.2.7", "https", `a"\b`, "443", "own", "1.1 anyedge")},
		{"via goes on", client, Fields{{"Via", "1.0 a"}, {"via", "1.1 b"}},
			append(slices.Clone(plain[:6]), Field{"Via", "1.0 a, 1.1 b, 1.1 anyedge"})},
		{"trusted hop that said nothing", hop, nil, plain},
		{"trusted hop with both chains", hop, Fields{
			{"Forwarded", "for=198.51.100.1;proto=http"}, {"X-Forwarded-For", "198.51.100.1"}, {"X-Forwarded-For", "10.0.0.1"},
			{"X-Forwarded-Proto", "http"}, {"X-Forwarded-Host", "www.example"}, {"X-Forwarded-Port", "80"}, {"X-Request-Id", "a-1.b_2"},
		}, set("for=198.51.100.1;proto=http, for=192.0.2.7;host=shop.example;proto=https", "198.51.100.1, 10.0.0.1, 192.0.2.7",
			"http", "www.example", "80", "a-1.b_2", "1.1 anyedge")},
		{"trusted hop with one chain", hop, Fields{{"X-Forwarded-For", "198.51.100.1"}},
			set("", "198.51.100.1, 192.0.2.7", "https", "shop.example", "443", "own", "1.1 anyedge")},
		{"trusted hop with the other", hop, Fields{{"Forwarded", "for=198.51.100.1"}},
			set("for=198.51.100.1, for=192.0.2.7;host=shop.example;proto=https", "", "https", "shop.example", "443", "own", "1.1 anyedge")},
		{"trusted hop's other fields stay, its spellings do not", hop, Fields{
			{"X-Real-IP", "198.51.100.1"}, {"Client-Cert", ":AA==:"}, {"X-Forwarded-Prefix", "/x"},
			{"X_Real_IP", "6.6.6.6"}, {"Anyedge-Probe", "x"}, {RequestID, "bad id"},
		}, append(Fields{{"X-Real-IP", "198.51.100.1"}, {"Client-Cert", ":AA==:"}, {"X-Forwarded-Prefix", "/x"}}, plain...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := slices.Clone(tt.in)
			id := f.Identify(tt.id)
			if !slices.Equal(f, tt.want) {
				t.Errorf("got  %v\nwant %v", f, tt.want)
			}
			if id != f.Get(RequestID) {
				t.Errorf("returned ID %q, sent %q", id, f.Get(RequestID))
			}
		})
	}
}

// Whatever an untrusted client sends, each identity field is there once and
// says what we know.
func FuzzIdentify(f *testing.F) {
	f.Add("X-Forwarded-For", "1.2.3.4", "Connection", "X-Forwarded-For")
	f.Add("x_forwarded_for", "1.2.3.4", "FORWARDED", "for=1.2.3.4")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		fields := Fields{{n1, v1}, {n2, v2}}
		if _, err := fields.TakeHop(); err != nil {
			t.Skip("such fields are refused before they are identified")
		}
		fields.Identify(Identity{Peer: netip.MustParseAddr("192.0.2.7"), Protocol: HTTP11, Scheme: "http", Authority: "a", Port: 80, ID: "id"})
		seen := map[string]int{}
		for _, x := range fields {
			// As a careless server would read the name.
			seen[strings.Map(func(r rune) rune {
				if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
					return r
				}
				if 'A' <= r && r <= 'Z' {
					return r + 'a' - 'A'
				}
				return '_'
			}, x.Name)]++
		}
		for _, name := range []string{"forwarded", "x_forwarded_for", "x_forwarded_proto", "x_forwarded_host", "x_forwarded_port", "x_request_id"} {
			if seen[name] != 1 {
				t.Fatalf("%s occurs %d times in %q", name, seen[name], fields)
			}
		}
		if got := fields.Get("X-Forwarded-For"); got != "192.0.2.7" {
			t.Fatalf("X-Forwarded-For %q", got)
		}
	})
}
