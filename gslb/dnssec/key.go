// Package dnssec has the keys that zones are signed with online, and their life:
// how they come, serve and go without any validator noticing.
//
// A [Ring] is the document of one zone's keys that the nodes share. It has, for
// every key, when it is published, signs, and goes, most of it long before, so
// that all nodes act together by their clocks. [Ring.At] says what the ring means
// at a time, as a [KeySet]. [Ring.Advance] is the schedule: it writes the times,
// begins rollovers when keys have served their time under a [Policy], and goes on
// with them when the parent zone is seen to have followed. Any node may call it and
// write the result back with a compare-and-swap; of two, one loses and reads again.
//
// # Rollovers
//
// Every step waits until nothing of before the step can be in a cache (RFC 7583):
//
//   - A ZSK is published, signs once every cache can have it, and the one before
//     leaves once no cache can have its signatures (pre-publish, RFC 7583 section
//     3.2.1).
//   - A KSK is published and signs the DNSKEY records beside the one before. Once
//     every cache can have it, CDS and CDNSKEY records ask the parent for it. When
//     the parent is seen to have its DS record and no longer the other's, the one
//     before leaves after the DS record's time in caches (double-KSK, RFC 7583
//     section 3.3.1).
//   - A CSK is both at once.
//   - A new algorithm signs everything before its keys are published, and the old
//     one goes on to sign until its keys are gone from caches (RFC 6781 section
//     4.1.4, the conservative way).
//   - The first DS record is asked for only when no cache can have an unsigned
//     answer; and a zone becomes unsigned only when the parent's DS records are gone
//     from caches (RFC 8078 section 4).
//
// All of this holds as long as every node has the ring within Propagation of its
// writing, and no two clocks differ by more.
//
// # Concurrency
//
// The package does no I/O and reads no clock; randomness is passed in. A KeySet is
// immutable, and its signers may be used by several goroutines. Rings are values:
// no method changes its receiver or what it points to.
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

// Tag returns the key tag (RFC 4034 appendix B).
func (k *Key) Tag() uint16 { return tag(k.Flags, k.Algorithm, k.Public) }

func tag(flags uint16, algorithm uint8, public []byte) uint16 {
	sum := uint32(flags) + protocol<<8 + uint32(algorithm)
	for i, b := range public {
		if i&1 == 0 {
			sum += uint32(b) << 8
		} else {
			sum += uint32(b)
		}
	}
	return uint16(sum + sum>>16)
}

// protocol is that of every key, RFC 4034 section 2.1.2.
const protocol = 3

// dnskey returns the data of a DNSKEY record (RFC 4034 section 2.1).
func dnskey(flags uint16, algorithm uint8, public []byte) []byte {
	return append([]byte{byte(flags >> 8), byte(flags), protocol, algorithm}, public...)
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
	// CDNSKEY records (RFC 7344). None means that it has no such records, unless
	// Delete is set.
	Parent []*Key
	// Delete asks the parent to take all DS records of the zone away, by the CDS and
	// CDNSKEY records of RFC 8078 section 4. Parent is empty then.
	Delete bool
	// TTL of the DNSKEY, CDS and CDNSKEY records, in whole seconds. Rollovers wait
	// for it.
	TTL time.Duration
	// Until is when the set changes next; the zero Time means not by itself.
	Until time.Time
}
