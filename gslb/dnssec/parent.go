package dnssec

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Types of digests in DS records, by their numbers in the registry.
const (
	SHA256 uint8 = 2 // RFC 4509
	SHA384 uint8 = 4 // RFC 6605
)

// DS is the data of a DS record (RFC 4034 section 5.1).
type DS struct {
	Tag       uint16
	Algorithm uint8
	Type      uint8 // of the digest
	Digest    []byte
}

// String returns the presentation form of the data.
func (d DS) String() string {
	return fmt.Sprintf("%d %d %d %s", d.Tag, d.Algorithm, d.Type, strings.ToUpper(hex.EncodeToString(d.Digest)))
}

// DS returns the DS record of k for zone, with a SHA-256 digest.
func (k *RingKey) DS(zone string) (DS, error) {
	digest, err := k.digest(zone, SHA256)
	return DS{Tag: k.Tag(), Algorithm: k.Algorithm, Type: SHA256, Digest: digest}, err
}

// digest is that of a DS record (RFC 4034 section 5.1.4), nil for types that are
// not known.
func (k *RingKey) digest(zone string, kind uint8) ([]byte, error) {
	owner, err := wireName(zone)
	if err != nil {
		return nil, err
	}
	data := append(owner, dnskey(k.flags(), k.Algorithm, k.Public)...)
	switch kind {
	case SHA256:
		sum := sha256.Sum256(data)
		return sum[:], nil
	case SHA384:
		sum := sha512.Sum384(data)
		return sum[:], nil
	}
	return nil, nil
}

// wireName returns a zone's name in wire form (RFC 1035 section 3.1).
func wireName(zone string) ([]byte, error) {
	var wire []byte
	for label := range strings.SplitSeq(zone, ".") {
		if len(label) == 0 || len(label) > 63 || strings.ContainsAny(label, `\`) || label != strings.ToLower(label) {
			return nil, fmt.Errorf("%.80q is not the name of a zone in lower case, without the final dot", zone)
		}
		wire = append(append(wire, byte(len(label))), label...)
	}
	if len(wire) > 254 {
		return nil, errors.New("the name of a zone is longer than 255 octets")
	}
	return append(wire, 0), nil
}

// pointsTo reports whether d is a DS record of k: certainly, if the digest can be
// checked and is right, or perhaps, if it is of another type.
func (d DS) pointsTo(zone string, k *RingKey) (certainly, perhaps bool) {
	if d.Tag != k.Tag() || d.Algorithm != k.Algorithm {
		return false, false
	}
	digest, err := k.digest(zone, d.Type)
	if err != nil {
		return false, true
	}
	certainly = digest != nil && bytes.Equal(digest, d.Digest)
	return certainly, certainly || digest == nil
}

// sighting is what answers of the parent say about the ring.
type sighting struct {
	bare   bool // no DS record in any answer
	secure bool // every answer has one of the key that is offered, none one of another
}

// see judges answers of the parent: of each server or resolver that was asked, its
// DS records.
func (r Ring) see(answers [][]DS, offered int) sighting {
	s := sighting{bare: true, secure: offered >= 0}
	for _, answer := range answers {
		s.bare = s.bare && len(answer) == 0
		has := false
		for _, d := range answer {
			for i := range r.Keys {
				certainly, perhaps := d.pointsTo(r.Zone, &r.Keys[i])
				switch {
				case i == offered:
					has = has || certainly
				case perhaps:
					s.secure = false
				}
			}
		}
		s.secure = s.secure && has
	}
	return s
}
