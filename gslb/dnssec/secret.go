package dnssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a private key: the scalar of an ECDSA key, or the seed of an Ed25519
// one. Every way of formatting or logging it yields "[redacted]";
// [Secret.MarshalText], which encoding/json uses, does not.
type Secret [32]byte

const redacted = "[redacted]"

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// Format implements [fmt.Formatter]: every verb prints "[redacted]".
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns the secret itself, in base64.
func (s Secret) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, s[:]), nil
}

// UnmarshalText reads what MarshalText wrote. Its error does not show the text.
func (s *Secret) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(s) {
		return fmt.Errorf("a private key is %d bytes in base64", len(s))
	}
	copy(s[:], b)
	return nil
}

// signer returns the private key, and the public one as in a DNSKEY record (RFC
// 6605 section 4, RFC 8080 section 3).
func (s Secret) signer(algorithm uint8) (crypto.Signer, []byte, error) {
	switch algorithm {
	case ECDSAP256SHA256:
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), s[:])
		if err != nil {
			return nil, nil, errors.New("not a private key of P-256")
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			return nil, nil, errors.New("not a private key of P-256")
		}
		return key, point[1:], nil // without the byte that says it is uncompressed
	case Ed25519:
		key := ed25519.NewKeyFromSeed(s[:])
		return key, key.Public().(ed25519.PublicKey), nil
	}
	return nil, nil, fmt.Errorf("algorithm %d is not supported", algorithm)
}

// generateSecret makes a private key from a source of randomness. About one in
// 2^32 values is no key of P-256; several in a row mean a broken source.
func generateSecret(rand io.Reader, algorithm uint8) (s Secret, public []byte, err error) {
	for range 4 {
		if _, err = io.ReadFull(rand, s[:]); err != nil {
			break
		}
		if _, public, err = s.signer(algorithm); err == nil {
			return s, public, nil
		}
	}
	return Secret{}, nil, fmt.Errorf("generate dnssec key: %w", err)
}
