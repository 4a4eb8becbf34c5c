package fleet_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"anyedge/internal/fleet"
)

// keyLine returns a key file line; the same n gives the same key.
func keyLine(n byte) string { return hex.EncodeToString(bytes.Repeat([]byte{n}, 32)) + "\n" }

func sealer(t testing.TB, lines ...string) *fleet.Sealer {
	t.Helper()
	s, err := fleet.ParseKeys([]byte(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseKeys(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb}, 32)
	tests := []struct {
		name, in string
		want     string // in the error; empty: no error
		keys     int
	}{
		{"hex", keyLine(1), "", 1},
		{"upper case hex", strings.ToUpper(keyLine(0xab)), "", 1},
		{"base64", base64.StdEncoding.EncodeToString(raw), "", 1},
		{"base64 without padding", base64.RawStdEncoding.EncodeToString(raw), "", 1},
		{"comments and blanks", "# ours\n\n  " + keyLine(1) + "\r\n" + keyLine(2), "", 2},
		{"empty", "", "no key", 0},
		{"only comments", "# none\n", "no key", 0},
		{"short", "# x\nabcd\n", "line 2: not a key", 0},
		{"long", keyLine(1)[:64] + "00", "line 1: not a key", 0},
		{"other characters", strings.Repeat("zz", 32), "line 1: not a key", 0},
		{"twice", keyLine(1) + keyLine(2) + keyLine(1), "line 3: the same key again", 0},
		{"huge", strings.Repeat("#", 64<<10+1), "more than", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := fleet.ParseKeys([]byte(test.in))
			switch {
			case test.want == "" && err != nil:
				t.Fatal(err)
			case test.want == "":
				if ids := strings.Fields(s.String()); len(ids) != test.keys {
					t.Fatalf("%v, want %d keys", s, test.keys)
				}
			case err == nil || !strings.Contains(err.Error(), test.want):
				t.Fatalf("error %v, want %q", err, test.want)
			case strings.Contains(err.Error(), "abcd"):
				t.Fatalf("the error repeats the line: %v", err)
			}
		})
	}
}

func TestSealAndOpen(t *testing.T) {
	old, both, new := sealer(t, keyLine(1)), sealer(t, keyLine(2), keyLine(1)), sealer(t, keyLine(2))
	for _, plain := range []string{"", "secret", strings.Repeat("long ", 1000)} {
		sealed := old.Seal("state/ring", []byte(plain))
		for name, s := range map[string]*fleet.Sealer{"old": old, "both": both} {
			got, err := s.Open("state/ring", sealed)
			if err != nil || string(got) != plain {
				t.Fatalf("%s: opened %q, %v", name, got, err)
			}
		}
		if _, err := new.Open("state/ring", sealed); err == nil {
			t.Fatal("opened with another key")
		}
		if _, err := old.Open("state/other", sealed); err == nil {
			t.Fatal("opened under another name")
		}
		if plain != "" && bytes.Contains(sealed, []byte(plain)) {
			t.Fatal("the plain text can be read")
		}
		if bytes.Equal(sealed, old.Seal("state/ring", []byte(plain))) {
			t.Fatal("two sealings are alike")
		}
	}
	// The first key seals.
	if _, err := new.Open("k", both.Seal("k", []byte("x"))); err != nil {
		t.Fatal("the first key did not seal")
	}
}

func TestOpenRefusesEveryAlteration(t *testing.T) {
	s := sealer(t, keyLine(1))
	sealed := s.Seal("k", []byte("secret"))
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := s.Open("k", bad); err == nil {
			t.Fatalf("byte %d altered, opened", i)
		}
		if _, err := s.Open("k", sealed[:i]); err == nil {
			t.Fatalf("cut to %d bytes, opened", i)
		}
	}
}

func TestLoadSealerRefusesOpenPermissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fleet.key")
	if _, err := fleet.LoadSealer(path); err == nil {
		t.Fatal("loaded a file that does not exist")
	}
	if err := os.WriteFile(path, []byte(keyLine(1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o644: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := fleet.LoadSealer(path)
		if ok && err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
		if !ok && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%04o", mode)) || !strings.Contains(err.Error(), path)) {
			t.Errorf("mode %o: error %v", mode, err)
		}
	}
}

func TestSealerNeverPrintsItsKeys(t *testing.T) {
	s := sealer(t, keyLine(0x5a))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("keys", "sealer", s)
	for _, text := range []string{
		fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%x", s), fmt.Sprintf("%d", s), log.String(),
	} {
		if !strings.Contains(text, "sealer(") || strings.Contains(text, "5a5a5a5a") || strings.Contains(text, "90 90 90") {
			t.Errorf("printed %s", text)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, keyLine(1))
	good := s.Seal("k", []byte("secret"))
	f.Add(good)
	f.Add(good[:33])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		// Another process of the same fuzzing seals the seed with another nonce.
		if plain, err := s.Open("k", sealed); err == nil && string(plain) != "secret" {
			t.Fatalf("opened a forgery as %q", plain)
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(keyLine(1) + "# c\n" + keyLine(2)))
	f.Add([]byte("+/==\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := fleet.ParseKeys(data)
		if err != nil {
			return
		}
		if plain, err := s.Open("k", s.Seal("k", data)); err != nil || !bytes.Equal(plain, data) {
			t.Fatalf("a parsed key does not open what it sealed: %v", err)
		}
	})
}
