package fleet

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// The envelope of a sealed value is a version byte, the id of the key, the
// nonce, then the ciphertext with its tag. Everything before the ciphertext and
// the name under which the value is stored are authenticated with it, so that
// a value cannot be moved to another key.
const (
	sealVersion = 1
	keyIDSize   = 8
	sealHeader  = 1 + keyIDSize + chacha20poly1305.NonceSizeX
)

// maxKeyFile bounds a key file in bytes.
const maxKeyFile = 64 << 10

// errSealed says that a value could not be opened, and nothing about why.
var errSealed = errors.New("sealed by a key that is not ours, or not sealed, or altered")

// Sealer keeps secrets secret at rest: XChaCha20-Poly1305 with a random nonce,
// which its 24 bytes make safe for any number of values. The first key of the
// file seals, all of them open. To change the key, add the new one as the last
// line on every node, then move it to the top everywhere, then take the old one
// away once every sealed value has been written again.
//
// Make one with [LoadSealer] or [ParseKeys]. It never prints its keys.
type Sealer struct {
	keys []sealKey
}

type sealKey struct {
	id   [keyIDSize]byte
	aead cipher.AEAD
}

// LoadSealer reads a key file. It refuses one that group or others can read.
func LoadSealer(path string) (*Sealer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("fleet keys: %w", err)
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("fleet keys: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("fleet keys: %s has mode %04o, so group or others can use it; make it 0600 or 0400", path, uint32(mode&fs.ModePerm))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("fleet keys: %w", err)
	}
	s, err := ParseKeys(data)
	if err != nil {
		return nil, fmt.Errorf("fleet keys: %s: %w", path, err)
	}
	return s, nil
}

// ParseKeys reads the contents of a key file: one key of 32 bytes on each line,
// in hex or base64. Empty lines and lines that begin with "#" do not count.
// Errors name the line and never repeat what it holds.
func ParseKeys(data []byte) (*Sealer, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("more than %d bytes", maxKeyFile)
	}
	s := new(Sealer)
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := string(bytes.TrimSpace(line))
		if text == "" || text[0] == '#' {
			continue
		}
		secret, ok := parseKey(text)
		if !ok {
			return nil, fmt.Errorf("line %d: not a key: want 32 bytes as 64 hex digits or 44 base64 characters", number)
		}
		key := newSealKey(secret)
		if s.find(key.id[:]) != nil {
			return nil, fmt.Errorf("line %d: the same key again", number)
		}
		s.keys = append(s.keys, key)
	}
	if len(s.keys) == 0 {
		return nil, errors.New("no key")
	}
	return s, nil
}

func parseKey(text string) ([]byte, bool) {
	var secret []byte
	var err error
	if len(text) == hex.EncodedLen(chacha20poly1305.KeySize) {
		secret, err = hex.DecodeString(text)
	} else {
		secret, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	}
	return secret, err == nil && len(secret) == chacha20poly1305.KeySize
}

func newSealKey(secret []byte) sealKey {
	aead, err := chacha20poly1305.NewX(secret)
	if err != nil {
		panic(err) // only for another length, which parseKey has ruled out
	}
	digest := sha256.Sum256(append([]byte("anyedge fleet key id\x00"), secret...))
	return sealKey{id: [keyIDSize]byte(digest[:]), aead: aead}
}

func (s *Sealer) find(id []byte) cipher.AEAD {
	for _, k := range s.keys {
		if bytes.Equal(k.id[:], id) {
			return k.aead
		}
	}
	return nil
}

// Seal encrypts plain for storage under key. Two calls never give the same bytes.
func (s *Sealer) Seal(key string, plain []byte) []byte {
	first := s.keys[0]
	out := make([]byte, sealHeader, sealHeader+len(plain)+first.aead.Overhead())
	out[0] = sealVersion
	copy(out[1:], first.id[:])
	nonce := out[1+keyIDSize : sealHeader]
	rand.Read(nonce) // never fails
	return first.aead.Seal(out, nonce, plain, sealContext(out, key))
}

// Open decrypts what Seal made for the same key.
func (s *Sealer) Open(key string, sealed []byte) ([]byte, error) {
	if len(sealed) < sealHeader || sealed[0] != sealVersion {
		return nil, errSealed
	}
	header := sealed[:sealHeader]
	aead := s.find(header[1 : 1+keyIDSize])
	if aead == nil {
		return nil, errSealed
	}
	plain, err := aead.Open([]byte{}, header[1+keyIDSize:], sealed[sealHeader:], sealContext(header, key))
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}

// sealContext is what is authenticated beside the ciphertext: the header has a
// fixed length, so the two parts cannot run into each other.
func sealContext(header []byte, key string) []byte {
	return append(bytes.Clone(header), key...)
}

// String returns the ids of the keys, sealing key first.
func (s *Sealer) String() string {
	ids := make([]string, len(s.keys))
	for i, k := range s.keys {
		ids[i] = hex.EncodeToString(k.id[:])
	}
	return "sealer(" + strings.Join(ids, " ") + ")"
}

// Format implements [fmt.Formatter], so that no verb prints a key.
func (s *Sealer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s *Sealer) LogValue() slog.Value { return slog.StringValue(s.String()) }
