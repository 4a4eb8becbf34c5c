package bfd

import (
	"crypto/sha1" // #nosec: RFC 5880 has nothing newer
	"crypto/subtle"
	"encoding/binary"
)

// The SHA1 authentication section, RFC 5880 section 4.4.
const (
	authLength     = 28
	hashLength     = sha1.Size
	authKeyed      = 4
	authMeticulous = 5
)

// authenticator signs and checks the packets of a session.
type authenticator struct {
	kind  uint8 // authKeyed or authMeticulous; 0 for none
	keys  []authKey
	sent  uint32 // bfd.XmitAuthSeq
	got   uint32 // bfd.RcvAuthSeq
	known bool   // bfd.AuthSeqKnown
}

type authKey struct {
	id     uint8
	secret [hashLength]byte // padded with zeros
}

func (a *authenticator) configure(cfg Auth) {
	kind := uint8(0)
	if len(cfg.Keys) > 0 {
		kind = authKeyed
		if cfg.Meticulous {
			kind = authMeticulous
		}
	}
	if kind != a.kind {
		a.kind, a.known = kind, false
	}
	a.keys = nil
	for _, k := range cfg.Keys {
		key := authKey{id: k.ID}
		copy(key.secret[:], k.Secret)
		a.keys = append(a.keys, key)
	}
}

// sign adds an authentication section to the packet b. The sequence number
// goes up with every packet: keyed SHA1 allows it and repeats are then told from
// replays as well as can be.
func (a *authenticator) sign(b []byte) []byte {
	a.sent++
	k := &a.keys[0]
	b = append(b, a.kind, authLength, k.id, 0)
	b = binary.BigEndian.AppendUint32(b, a.sent)
	b = append(b, k.secret[:]...)
	b[1] |= flagAuth
	b[3] = headerLength + authLength
	sum := sha1.Sum(b)
	copy(b[len(b)-hashLength:], sum[:])
	return b
}

// verify checks the whole packet b, whose A bit is set, from a neighbor with
// the given Detect Mult. A wrong packet changes nothing: a sequence number
// counts only after the hash has been found right.
func (a *authenticator) verify(b []byte, multiplier uint8) bool {
	if len(b) != maxPacket {
		return false
	}
	section := b[headerLength:]
	if section[0] != a.kind || section[1] != authLength {
		return false
	}
	var key *authKey
	for i := range a.keys {
		if a.keys[i].id == section[2] {
			key = &a.keys[i]
		}
	}
	if key == nil {
		return false
	}
	seq := binary.BigEndian.Uint32(section[4:])
	if a.known {
		ahead := seq - a.got // circular
		if ahead > 3*uint32(multiplier) || ahead == 0 && a.kind == authMeticulous {
			return false
		}
	}
	var copied [maxPacket]byte
	copy(copied[:], b)
	copy(copied[headerLength+8:], key.secret[:])
	sum := sha1.Sum(copied[:])
	if subtle.ConstantTimeCompare(sum[:], section[8:authLength]) != 1 {
		return false
	}
	a.got, a.known = seq, true
	return true
}
