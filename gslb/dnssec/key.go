// Package dnssec has the keys that zones are signed with online.
//
// # Concurrency
//
// A KeySet is immutable. Its signers may be used by several goroutines.
package dnssec

import (
	"crypto"
	"time"
)

// Algorithms of keys, by their numbers in the registry of DNSSEC algorithms.
const (
	ECDSAP256SHA256 uint8 = 13 // RFC 6605
	Ed25519         uint8 = 15 // RFC 8080
)

// Flags of keys, RFC 4034 section 2.1.1.
const (
	ZoneKey          uint16 = 256
	SecureEntryPoint uint16 = 257 // a zone key that the parent's DS record points to
)

// Key is a key pair of a zone.
type Key struct {
	// Flags is ZoneKey or SecureEntryPoint.
	Flags     uint16
	Algorithm uint8
	// Public is the public key as in a DNSKEY record.
	Public []byte
	// Signer is the private key: of ECDSA or Ed25519, as Algorithm says.
	Signer crypto.Signer
}

// KeySet says how a zone is signed at one time. A key that does the work of both
// (CSK) is in Zone and in Entry. Lists are ordered by key tag.
type KeySet struct {
	// Published are the DNSKEY records of the zone.
	Published []*Key
	// Zone sign all records but those that Entry signs.
	Zone []*Key
	// Entry sign the DNSKEY, CDS and CDNSKEY records (RFC 7344 section 4.1).
	Entry []*Key
	// Parent are those that the zone asks its parent for a DS record of, by CDS and
	// CDNSKEY records (RFC 7344). None means that it has no such records.
	Parent []*Key
	// Until is when the set changes next; the zero Time means not by itself.
	Until time.Time
}
