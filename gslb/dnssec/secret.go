package dnssec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"

	"anyedge/internal/secret"
)

// Secret is a private key: the scalar of an ECDSA key, or the seed of an Ed25519
// one.
type Secret = secret.Key

// signer returns the private key, and the public one as in a DNSKEY record (RFC
// 6605 section 4, RFC 8080 section 3).
func signer(s Secret, algorithm uint8) (crypto.Signer, []byte, error) {
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
		if _, public, err = signer(s, algorithm); err == nil {
			return s, public, nil
		}
	}
	return Secret{}, nil, fmt.Errorf("generate dnssec key: %w", err)
}
