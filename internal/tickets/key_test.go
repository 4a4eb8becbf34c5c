package tickets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
)

// leaks reports in which form text shows the secret.
func leaks(text string, s Secret) string {
	for name, form := range map[string]string{
		"hex":         hex.EncodeToString(s[:8]),
		"base64":      base64.StdEncoding.EncodeToString(s[:6]),
		"raw":         string(s[:8]),
		"numbers":     strings.Trim(fmt.Sprint(s[:4]), "[]"),
		"Go numbers":  fmt.Sprintf("%#x, %#x, %#x", s[0], s[1], s[2]),
		"JSON list":   fmt.Sprintf("%d,%d,%d", s[0], s[1], s[2]),
		"Go hex list": strings.Trim(fmt.Sprintf("%#v", s[:3]), "[]byte{}"),
	} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
			return name
		}
	}
	return ""
}

func TestSecretsAreNotPrinted(t *testing.T) {
	ring := newRing(t, hourly)
	key := ring.Keys[0]
	nested := struct {
		Name string
		Keys []Key
		Map  map[string]Secret
		Key  *Key
		Ring *Ring
	}{"n", ring.Keys, map[string]Secret{"s": key.Secret}, &key, &ring}
	for _, v := range []any{key.Secret, &key.Secret, key, &key, ring, &ring, nested, ring.Keys} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c", "%U", "%t"} {
			if text := fmt.Sprintf(verb, v); leaks(text, key.Secret) != "" {
				t.Errorf("%T with %s: %s", v, verb, text)
			}
		}
	}
	if key.Secret.String() != "[redacted]" {
		t.Error("String shows the secret")
	}
	if got, want := fmt.Sprint(ring), fmt.Sprintf("ticket ring [%s from 2026-01-01T00:00:00Z %s from 2026-01-01T01:00:00Z]", key.ID, ring.Keys[1].ID); got != want {
		t.Errorf("a ring is printed as %q, want %q", got, want)
	}

	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("ring", "secret", key.Secret, "key", key, "pointer", &key, "ring", ring)
	}
	if form := leaks(out.String(), key.Secret); form != "" {
		t.Errorf("slog shows the secret as %s:\n%s", form, out.String())
	}
	if strings.Count(out.String(), key.ID.String()) < 6 {
		t.Errorf("slog does not show the id everywhere:\n%s", out.String())
	}

	status, err := json.Marshal(ring.Status(start))
	if err != nil || leaks(string(status), key.Secret) != "" {
		t.Errorf("status: %s, %v", status, err)
	}
	ring.Keys[1].ID = ring.Keys[0].ID
	if err := ring.Validate(); err == nil || leaks(err.Error(), key.Secret) != "" {
		t.Errorf("validation: %v", err)
	}
}

func TestRingJSON(t *testing.T) {
	ring, err := New(time.Now(), hourly, source(1)) // a time with a monotonic reading
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(ring)
	if err != nil {
		t.Fatal(err)
	}
	var back Ring
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ring, back) {
		t.Errorf("%s became another ring", data)
	}
	if leaks(string(data), ring.Keys[0].Secret) == "" {
		t.Error("the test for leaks does not see a secret in base64")
	}
}

func TestTextForms(t *testing.T) {
	secret := strings.Repeat("A", 43) + "="
	for _, tt := range []struct {
		name string
		json string
		ok   bool
	}{
		{"valid", `{"id":"0123456789abcdef","secret":"` + secret + `"}`, true},
		{"short id", `{"id":"0123456789abcd"}`, false},
		{"long id", `{"id":"0123456789abcdef01"}`, false},
		{"id that is not hexadecimal", `{"id":"0123456789abcdeg"}`, false},
		{"short secret", `{"secret":"c2VjcmV0c2VjcmV0"}`, false},
		{"secret with trailing bits", `{"secret":"` + strings.Repeat("A", 42) + `B="}`, false},
		{"secret as a list", `{"secret":[1,2,3]}`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var k Key
			err := json.Unmarshal([]byte(tt.json), &k)
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok = %v", err, tt.ok)
			}
			if err != nil && strings.Contains(err.Error(), "c2Vjc") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// failing is a source of randomness that ends.
type failing struct{ left int }

var errSource = errors.New("no randomness")

func (f *failing) Read(p []byte) (int, error) {
	n := min(f.left, len(p))
	f.left -= n
	if n == 0 {
		return 0, errSource
	}
	for i := range p[:n] {
		p[i] = byte(f.left + i + 1)
	}
	return n, nil
}

func TestFailingRandomness(t *testing.T) {
	for left := range 80 { // two keys are 80 bytes
		if _, err := New(start, hourly, &failing{left}); err == nil {
			t.Errorf("a ring was made from %d random bytes", left)
		}
	}
	ring := newRing(t, hourly)
	for _, left := range []int{0, 8, 39} {
		next, changed, err := ring.Advance(start.Add(hourly.Rotate), hourly, &failing{left})
		if err == nil || changed || !reflect.DeepEqual(next, ring) {
			t.Errorf("%d random bytes: changed %v, error %v", left, changed, err)
		}
	}
}

// A source that always yields the same must not make two keys of it.
func TestRepeatingRandomness(t *testing.T) {
	same := bytes.NewReader(bytes.Repeat([]byte{7}, 1000))
	if _, err := New(start, hourly, same); err == nil {
		t.Error("a ring of one key twice was made")
	}
	zero := bytes.NewReader(make([]byte, 1000))
	if _, err := New(start, hourly, zero); err == nil {
		t.Error("a ring of zeros was made")
	}
}
