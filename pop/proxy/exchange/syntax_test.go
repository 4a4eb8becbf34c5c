package exchange

import (
	"encoding/base64"
	"errors"
	"testing"
)

func TestSyntax(t *testing.T) {
	for name, c := range map[string]struct {
		valid     func(string) bool
		good, bad []string
	}{
		"length": {func(s string) bool { _, ok := ParseLength(s); return ok },
			[]string{"0", "42", "9223372036854775807"}, []string{"", "-1", "+1", " 1", "1 ", "0x1", "1_000", "9223372036854775808"}},
		"value":     {ValidValue, []string{"", "a", "a b", "a\tb", "\xff"}, []string{" a", "a ", "\ta", "a\x00b", "a\rb", "a\nb", "\x7f"}},
		"token":     {Token, []string{"GET", "a-b", "!#$%&'*+-.^_`|~09"}, []string{"", "a b", "a:b", "a\x00", "ä", "(", "a/b"}},
		"name":      {ValidName, []string{"accept", "x-1"}, []string{"", "Accept", ":path", "a b", "a\x00"}},
		"path":      {ValidPath, []string{"/", "/a?b", "*", "/\xff"}, []string{"", "a", "/a b", "/a#b", "/\x7f", "**", "/\x00"}},
		"authority": {ValidAuthority, []string{"a", "a:1", "[::1]:443"}, []string{"", "a b", "a@b", "a/b", "a#", "a?b", `a\b`, "ä", "a\x00"}},
	} {
		for _, s := range c.good {
			if !c.valid(s) {
				t.Errorf("%s: %q is refused", name, s)
			}
		}
		for _, s := range c.bad {
			if c.valid(s) {
				t.Errorf("%s: %q is taken", name, s)
			}
		}
	}
}

func TestAskWebSocket(t *testing.T) {
	// The example of RFC 6455, 1.3.
	if got := WebSocketAccept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("accept %s", got)
	}
	r := Request{Method: "CONNECT", Length: -1}
	r.Fields.Add("Sec-WebSocket-Key", "theirs")
	key := r.AskWebSocket()
	nonce, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(nonce) != 16 || r.Method != "GET" || r.Length != 0 || len(r.Fields) != 1 || r.Fields.Get("Sec-WebSocket-Key") != key {
		t.Errorf("key %q, %v, %+v", key, err, r)
	}
	if !errors.Is(ErrAccept, ErrHandshake) {
		t.Error("not a failed handshake")
	}
}
