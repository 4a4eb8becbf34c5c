package gslb

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func secret(t testing.TB, text string) (s CookieSecret) {
	t.Helper()
	if _, err := hex.Decode(s[:], []byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

// The vectors of RFC 9018 appendix A.
func TestCookieVectors(t *testing.T) {
	const first, before, after = "e5e973e5a6b2a43f48e7dc849e37bfcf", "dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"
	tests := []struct {
		about, secret, from, cookie, want string
		now                               uint32
		known                             bool
	}{
		{"learning", first, "198.51.100.100", "2464c4abcf10c957", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", 1559731985, false},
		{"the same client returns", first, "198.51.100.100", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "2464c4abcf10c957010000005cf7a871d4a564a1442aca77", 1559734385, true},
		{"another client, after the lifetime", first, "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e", 1559734700, false},
		{"IPv6", after, "2001:db8:220:1:59de:d0f4:8769:82b8", "22681ab97d52c298010000005cf7c57926556bd0934c72f8", "22681ab97d52c298010000005cf7c609a6bb79d16625507a", 1559741961, false},
	}
	for _, tt := range tests {
		c := cookies{secret(t, tt.secret)}
		cookie, err := hex.DecodeString(tt.cookie)
		if err != nil {
			t.Fatal(err)
		}
		if tt.about == "IPv6" { // its cookie is of the secret that was rolled over
			c = append(c, secret(t, before))
			tt.known = true
		}
		got, known := c.answer(nil, cookie, netip.MustParseAddr(tt.from), tt.now)
		if hex.EncodeToString(got) != tt.want || known != tt.known {
			t.Errorf("%s: %x, known %v; want %s, %v", tt.about, got, known, tt.want, tt.known)
		}
	}
}

func TestCookieAges(t *testing.T) {
	c := cookies{newCookieSecret()}
	from := netip.MustParseAddr("192.0.2.1")
	const made = 1_700_000_000
	cookie, _ := c.answer(nil, make([]byte, 8), from, made)
	for _, tt := range []struct {
		age         int
		known, kept bool
	}{
		{0, true, true}, {cookieRenewal - 1, true, true}, {cookieRenewal, true, false}, {cookieLifetime, true, false},
		{cookieLifetime + 1, false, false}, {-cookieAhead, true, true}, {-cookieAhead - 1, false, false},
	} {
		got, known := c.answer(nil, cookie, from, uint32(made+tt.age))
		if known != tt.known || bytes.Equal(got, cookie) != tt.kept {
			t.Errorf("age %d: known %v, kept %v", tt.age, known, bytes.Equal(got, cookie))
		}
	}
	for about, bad := range map[string][]byte{
		"a changed octet": append(bytes.Clone(cookie[:23]), cookie[23]^1),
		"another version": append(append(bytes.Clone(cookie[:8]), 2), cookie[9:]...),
		"too short":       cookie[:16],
	} {
		if _, known := c.answer(nil, bad, from, made); known {
			t.Errorf("%s was taken", about)
		}
	}
	if _, known := c.answer(nil, cookie, netip.MustParseAddr("192.0.2.2"), made); known {
		t.Error("another client's cookie was taken")
	}
}

func TestReadCookieSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets")
	for text, want := range map[string]string{
		"# first\n\ne5e973e5a6b2a43f48e7dc849e37bfcf # now\n445536bcd2513298075a5d379663c962": "",
		"":                                 "no secret in it",
		"\ne5e973e5a6":                     ":2: not a secret of 32 hexadecimal digits",
		"e5e973e5a6b2a43f48e7dc849e37bfcg": ":1: not a secret of 32 hexadecimal digits",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadCookieSecrets(file)
		if want == "" && (err != nil || len(got) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %d secrets, %v", text, len(got), err)
		}
		if err != nil && strings.Contains(err.Error(), "e5e9") {
			t.Errorf("the secret shows: %v", err)
		}
	}
}
