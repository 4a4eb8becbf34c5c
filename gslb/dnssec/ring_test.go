package dnssec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// The examples of RFC 6605 section 6.1 and RFC 8080 section 6.1.
func TestKnownKeys(t *testing.T) {
	for _, tt := range []struct {
		zone            string
		algorithm       uint8
		private, public string
		ds              string
	}{
		{
			"example.net", ECDSAP256SHA256, "GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=",
			"GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==",
			"55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17",
		},
		{
			"example.com", Ed25519, "ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=",
			"l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=",
			"3613 15 2 3AA5AB37EFCE57F737FC1627013FEE07BDF241BD10F3B1964AB55C78E79A304B",
		},
	} {
		k := RingKey{Role: KSK, Algorithm: tt.algorithm}
		if err := k.Secret.UnmarshalText([]byte(tt.private)); err != nil {
			t.Fatal(err)
		}
		_, public, err := signer(k.Secret, tt.algorithm)
		if err != nil || base64.StdEncoding.EncodeToString(public) != tt.public {
			t.Errorf("%s: public key %x, %v", tt.zone, public, err)
		}
		k.Public = public
		ds, err := k.DS(tt.zone)
		if err != nil || ds.String() != tt.ds {
			t.Errorf("%s: DS %v, %v, want %s", tt.zone, ds, err, tt.ds)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	ring := newZone(t, slow).ring
	secret := ring.Keys[0].Secret
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("ring", "ring", ring, "secret", secret)
	}
	status, err := json.Marshal(ring.Status(start))
	if err != nil {
		t.Fatal(err)
	}
	out.Write(status)
	for _, v := range []any{secret, &secret, ring, &ring, ring.Keys, ring.Keys[0], struct{ Ring Ring }{ring}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb, v)
		}
	}
	text, _ := secret.MarshalText()
	for _, form := range []string{string(text[:8]), fmt.Sprintf("%x", secret[:4]), fmt.Sprintf("%X", secret[:4]), strings.Trim(fmt.Sprint(secret[:4]), "[]"), string(secret[:6])} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret is shown as %q", form)
		}
	}
}

func TestParseRing(t *testing.T) {
	z := newZone(t, split(slow))
	z.advance(240*time.Hour, nil)
	good, err := json.Marshal(z.ring)
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseRing("edge.example", good)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(back); !bytes.Equal(again, good) {
		t.Errorf("%s became %s", good, again)
	}
	if _, err := ParseRing("other.example", good); err == nil {
		t.Error("a ring of another zone was taken")
	}
	if _, err := ParseRing("edge.example", good[:len(good)-1]); err == nil {
		t.Error("half a ring was taken")
	}
	if _, err := ParseRing("edge.example", slices.Concat(good, good)); err == nil {
		t.Error("two rings were taken for one")
	}
	for name, change := range map[string]func(*Ring){
		"version":           func(r *Ring) { r.Version = 2 },
		"zone":              func(r *Ring) { r.Zone = "Edge.example" },
		"no keys":           func(r *Ring) { r.Keys = nil },
		"no zsk":            func(r *Ring) { r.Keys = r.Keys[:1] },
		"no ksk":            func(r *Ring) { r.Keys = r.Keys[1:] },
		"no ttl":            func(r *Ring) { r.KeyTTL = 0 },
		"role":              func(r *Ring) { r.Keys[0].Role = "sep" },
		"not published":     func(r *Ring) { r.Keys[0].Published = time.Time{} },
		"ksk with active":   func(r *Ring) { r.Keys[0].Active = start },
		"zsk with offered":  func(r *Ring) { r.Keys[1].Offered = start },
		"same key twice":    func(r *Ring) { r.Keys[2] = r.Keys[1] },
		"last zsk retires":  func(r *Ring) { r.Keys[2].Retired = start },
		"last ksk leaves":   func(r *Ring) { r.Keys[0].Removed = start },
		"gap between zsks":  func(r *Ring) { r.Keys[1].Retired = r.Keys[2].Active.Add(-1) },
		"another's private": func(r *Ring) { r.Keys[0].Secret = r.Keys[1].Secret },
		"no private":        func(r *Ring) { r.Keys[0].Secret = Secret{} },
		"algorithm":         func(r *Ring) { r.Keys[0].Algorithm = 8 },
	} {
		var r Ring
		if err := json.Unmarshal(good, &r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParseRing("edge.example", data)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if secret, _ := r.Keys, err; len(secret) > 0 {
			if text, _ := secret[0].Secret.MarshalText(); strings.Contains(err.Error(), string(text[:8])) {
				t.Errorf("%s: the error shows a secret", name)
			}
		}
	}
}

func TestDSOfOtherDigests(t *testing.T) {
	z := newZone(t, slow)
	sha256, _ := z.ring.Keys[0].DS(z.ring.Zone)
	sha1 := DS{Tag: sha256.Tag, Algorithm: sha256.Algorithm, Type: 1, Digest: make([]byte, 20)}
	wrong := sha256
	wrong.Digest = make([]byte, 32)
	digest, err := z.ring.Keys[0].digest(z.ring.Zone, SHA384)
	if err != nil {
		t.Fatal(err)
	}
	sha384 := DS{Tag: sha256.Tag, Algorithm: sha256.Algorithm, Type: SHA384, Digest: digest}
	for _, tt := range []struct {
		name   string
		parent [][]DS
		secure bool
	}{
		{"SHA-256", [][]DS{{sha256}}, true},
		{"SHA-384", [][]DS{{sha384}}, true},
		{"with SHA-1", [][]DS{{sha1, sha256}}, true},
		{"SHA-1 only", [][]DS{{sha1}}, false},
		{"wrong digest", [][]DS{{wrong}}, false},
		{"none", [][]DS{{}}, false},
		{"none at one resolver", [][]DS{{sha256}, {}}, false},
		{"nobody was asked", nil, false},
	} {
		r, _, err := z.ring.Advance(at(10*hour), "edge.example", slow, tt.parent, source(1))
		if err != nil || r.Keys[0].Secured.IsZero() == tt.secure {
			t.Errorf("%s: secured %v, want %v; %v", tt.name, !r.Keys[0].Secured.IsZero(), tt.secure, err)
		}
	}
	// Of a key that is to go, a digest that cannot be checked counts.
	r, err := z.ring.Roll(at(10*hour), slow, CSK, source(7))
	if err != nil {
		t.Fatal(err)
	}
	next, _ := r.Keys[1].DS(r.Zone)
	r, _, err = r.Advance(at(20*hour), "edge.example", slow, [][]DS{{sha1, next}}, source(1))
	if err != nil || !r.Keys[1].Secured.IsZero() {
		t.Errorf("the parent still has a DS record of the key before: %v", err)
	}
}
