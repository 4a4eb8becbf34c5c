// Package secret keeps keys from showing themselves: what is printed, formatted or
// logged of one says that it is redacted. Only who encodes it gets it.
//
// # Concurrency
//
// A [Key] is a plain value.
package secret

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
)

// Key is 32 bytes that nobody is to see. Every way of formatting or logging it yields
// "[redacted]"; [Key.MarshalText], which encoding/json uses, does not.
type Key [32]byte

const redacted = "[redacted]"

// String returns "[redacted]".
func (Key) String() string { return redacted }

// Format implements [fmt.Formatter]: every verb prints "[redacted]".
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns the key itself, in base64.
func (k Key) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText reads what MarshalText wrote. Its error does not show the text.
func (k *Key) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(k) {
		return fmt.Errorf("a secret key is %d bytes in base64", len(k))
	}
	copy(k[:], b)
	return nil
}
