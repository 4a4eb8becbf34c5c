package gslb

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"strings"
)

// Sizes of cookies, RFC 7873 section 4 and RFC 9018 section 4.
const (
	clientCookie = 8
	serverCookie = 16
	fullCookie   = clientCookie + serverCookie
)

// Ages of server cookies, in seconds (RFC 9018 section 4.3).
const (
	cookieLifetime = 60 * 60
	cookieAhead    = 5 * 60  // of clocks in the fleet
	cookieRenewal  = 30 * 60 // after which the answer brings a new one
)

// CookieSecret is a key of server cookies.
type CookieSecret [16]byte

// ReadCookieSecrets reads a file of secrets, one a line in 32 hexadecimal digits;
// "#" starts a comment. Servers with the same file take each other's cookies, of
// this kind and of others (RFC 9018 section 5): the first secret makes cookies,
// all are taken.
func ReadCookieSecrets(file string) ([]CookieSecret, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cookie secrets: %w", err)
	}
	var secrets []CookieSecret
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		raw, err := hex.DecodeString(line)
		if err != nil || len(raw) != len(CookieSecret{}) {
			return nil, fmt.Errorf("%s:%d: not a secret of 32 hexadecimal digits", file, number) // which the error does not show
		}
		secrets = append(secrets, CookieSecret(raw))
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s: no secret in it", file)
	}
	return secrets, nil
}

// newCookieSecret is one that no other server knows.
func newCookieSecret() (s CookieSecret) {
	rand.Read(s[:])
	return s
}

// validCookie reports whether the data of a cookie option has a length that there
// is (RFC 7873 section 5.2.2).
func validCookie(data []byte) bool {
	n := len(data)
	return n == clientCookie || clientCookie+8 <= n && n <= clientCookie+32
}

// cookies makes and takes server cookies. It is never changed.
type cookies []CookieSecret

// answer appends the cookie that goes back for one that came from an address,
// and reports whether that was a server cookie of this server. It does not
// allocate if dst has room. now is in Unix seconds.
func (c cookies) answer(dst, cookie []byte, from netip.Addr, now uint32) (msg []byte, known bool) {
	if len(cookie) == fullCookie && cookie[8] == 1 {
		made := binary.BigEndian.Uint32(cookie[12:])
		// Serial arithmetic, RFC 1982.
		if age := int32(now - made); age <= cookieLifetime && age >= -cookieAhead {
			for i := range c {
				var want [8]byte
				binary.LittleEndian.PutUint64(want[:], c[i].hash(cookie[:fullCookie-8], from))
				if subtle.ConstantTimeCompare(want[:], cookie[fullCookie-8:]) == 0 {
					continue
				}
				if i == 0 && age < cookieRenewal {
					return append(dst, cookie...), true
				}
				known = true
				break
			}
		}
	}
	at := len(dst)
	dst = append(dst, cookie[:clientCookie]...)
	dst = append(dst, 1, 0, 0, 0) // version and reserved
	dst = binary.BigEndian.AppendUint32(dst, now)
	return binary.LittleEndian.AppendUint64(dst, c[0].hash(dst[at:], from)), known
}

// hash is that of RFC 9018 section 4.4 over the first 16 octets of a cookie and
// the client's address.
func (s *CookieSecret) hash(cookie []byte, from netip.Addr) uint64 {
	var text [32]byte
	n := copy(text[:], cookie[:16])
	if from.Is4() {
		a := from.As4()
		n += copy(text[n:], a[:])
	} else {
		a := from.As16()
		n += copy(text[n:], a[:])
	}
	return sipHash(s, text[:n])
}

// sipHash is SipHash-2-4.
func sipHash(key *CookieSecret, text []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(text)) << 56
	for ; len(text) >= 8; text = text[8:] {
		m := binary.LittleEndian.Uint64(text)
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	var rest [8]byte
	copy(rest[:], text)
	last |= binary.LittleEndian.Uint64(rest[:])
	v3 ^= last
	round()
	round()
	v0 ^= last
	v2 ^= 0xff
	for range 4 {
		round()
	}
	return v0 ^ v1 ^ v2 ^ v3
}
