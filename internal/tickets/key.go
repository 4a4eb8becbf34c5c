package tickets

import (
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"time"

	"anyedge/internal/secret"
)

// Key is one ticket key.
//
// Printing or logging a Key does not show the secret. Its JSON form has it: that
// is how a key travels, sealed in the fleet's store and over the link between an
// agent and its worker. So never log a value that merely contains keys in a JSON
// log, or print one that has them in unexported fields, where fmt cannot ask
// them how to be printed.
type Key struct {
	// ID names the key in the tickets that it sealed. It is no secret.
	ID     ID     `json:"id"`
	Secret Secret `json:"secret"`
	// ActivatesAt is when the key starts to encrypt. It decrypts before.
	ActivatesAt time.Time `json:"activates_at"`
}

// Format implements [fmt.Formatter]: every verb prints the id and the activation.
func (k Key) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "%s from %s", k.ID, k.ActivatesAt.Format(time.RFC3339))
}

// LogValue implements [slog.LogValuer], without the secret.
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", k.ID.String()), slog.Time("activates_at", k.ActivatesAt))
}

// ID names a key. Its text form is hexadecimal.
type ID [8]byte

// String returns the text form.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(id) {
		return fmt.Errorf("a ticket key's id is %d hexadecimal digits", 2*len(id))
	}
	copy(id[:], b)
	return nil
}

// Secret is the secret part of a key.
type Secret = secret.Key

// generate makes a key from a source of randomness.
func generate(source io.Reader, activatesAt time.Time) (Key, error) {
	k := Key{ActivatesAt: wall(activatesAt)}
	if _, err := io.ReadFull(source, k.ID[:]); err != nil {
		return Key{}, fmt.Errorf("generate ticket key: %w", err)
	}
	if _, err := io.ReadFull(source, k.Secret[:]); err != nil {
		return Key{}, fmt.Errorf("generate ticket key: %w", err)
	}
	return k, nil
}

// wall returns t as other hosts see it, without a monotonic reading.
func wall(t time.Time) time.Time { return t.UTC().Round(0) }
