package gslb

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Key is a key that messages are signed with (TSIG, RFC 8945).
type Key struct {
	Name string
	// Algorithm is hmac-sha256, hmac-sha384 or hmac-sha512.
	Algorithm string
	Secret    []byte
}

// ReadKeySecret reads a file with the secret of a key in base64.
func ReadKeySecret(file string) ([]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(secret) < 16 {
		return nil, fmt.Errorf("%s is not a secret of at least 16 octets in base64; \"head -c 32 /dev/urandom | base64\" makes one", file)
	}
	return secret, nil
}

// keyring is the keys by canonical name. It is never changed, and is the
// library's TsigProvider.
type keyring map[string]Key

// ring returns the server's keys, which a reload replaces.
func (s *Server) ring() keyring {
	if keys := s.keys.Load(); keys != nil {
		return *keys
	}
	return nil
}

var algorithms = map[string]func() hash.Hash{
	dns.HmacSHA256: sha256.New, dns.HmacSHA384: sha512.New384, dns.HmacSHA512: sha512.New,
}

func newKeyring(keys []Key) (keyring, error) {
	ring := make(keyring)
	for _, k := range keys {
		n, err := parseName(k.Name)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		k.Name, k.Algorithm = n.String(), dns.Fqdn(k.Algorithm)
		switch {
		case algorithms[k.Algorithm] == nil:
			return nil, fmt.Errorf("key %s: %s is not an algorithm for keys", k.Name, k.Algorithm)
		case ring[k.Name].Name != "":
			return nil, fmt.Errorf("key %s: listed twice", k.Name)
		}
		ring[k.Name] = k
	}
	return ring, nil
}

// Generate returns the signature of a message.
func (r keyring) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	k, ok := r[dns.CanonicalName(t.Hdr.Name)]
	if !ok {
		return nil, dns.ErrSecret
	}
	if dns.CanonicalName(t.Algorithm) != k.Algorithm {
		return nil, dns.ErrKeyAlg
	}
	h := hmac.New(algorithms[k.Algorithm], k.Secret)
	h.Write(msg)
	return h.Sum(nil), nil
}

// Verify returns an error if a message is not signed as its TSIG record says.
func (r keyring) Verify(msg []byte, t *dns.TSIG) error {
	want, err := r.Generate(msg, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil || !hmac.Equal(got, want) { // truncated ones are not taken
		return dns.ErrSig
	}
	return nil
}

// signature is how a request was signed, and what its answers are signed with.
type signature struct {
	ring keyring
	tsig *dns.TSIG
	// code is the extended error of a signature that is not right, RFC 8945
	// section 5.2; NOERROR if it is.
	code uint16
	// mac is that of the message before, and later whether there were answers.
	mac   string
	later bool
}

const tsigFudge = 300 // seconds

// unsign takes the TSIG record off a request. It returns nil for one without,
// and not ok for one in which the record is not where it may be.
func (r keyring) unsign(msg []byte) (bare []byte, sig *signature, ok bool) {
	at := tsigAt(msg)
	if at == 0 {
		return msg, nil, true
	}
	rr, end, err := dns.UnpackRR(msg, at)
	tsig, is := rr.(*dns.TSIG)
	if err != nil || !is || end != len(msg) || tsig.Hdr.Class != dns.ClassANY {
		return nil, nil, false
	}
	sig = &signature{ring: r, tsig: tsig, mac: tsig.MAC}
	err = dns.TsigVerifyWithProvider(bytes.Clone(msg), r, "", false) // which writes to it
	switch {
	case err == nil:
	case errors.Is(err, dns.ErrTime):
		sig.code = dns.RcodeBadTime
	case errors.Is(err, dns.ErrSecret), errors.Is(err, dns.ErrKeyAlg):
		sig.code = dns.RcodeBadKey
	default:
		sig.code = dns.RcodeBadSig
	}
	bare = append([]byte(nil), msg[:at]...)
	binary.BigEndian.PutUint16(bare[10:], binary.BigEndian.Uint16(bare[10:])-1)
	return bare, sig, true
}

// tsigAt returns where the last record of a message begins if it is a TSIG
// record of the additional section, else 0.
func tsigAt(msg []byte) int {
	if len(msg) < headerSize || binary.BigEndian.Uint16(msg[10:]) == 0 {
		return 0
	}
	count := func(off int) int { return int(binary.BigEndian.Uint16(msg[off:])) }
	off := headerSize
	for range count(4) {
		if off = skipName(msg, off); off < 0 || off+4 > len(msg) {
			return 0
		}
		off += 4
	}
	last, rtype := 0, uint16(0)
	for range count(6) + count(8) + count(10) {
		last = off
		if off = skipName(msg, off); off < 0 || off+10 > len(msg) {
			return 0
		}
		rtype = binary.BigEndian.Uint16(msg[off:])
		off += 10 + count(off+8)
		if off > len(msg) {
			return 0
		}
	}
	if rtype != dns.TypeTSIG {
		return 0
	}
	return last
}

// sign signs an answer.
func (s *signature) sign(m *dns.Msg) ([]byte, error) {
	m.Extra = append(m.Extra, &dns.TSIG{
		Hdr:       dns.RR_Header{Name: s.tsig.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: s.tsig.Algorithm, TimeSigned: uint64(time.Now().Unix()), Fudge: tsigFudge, OrigId: m.Id, Error: s.code,
	})
	tsig := m.Extra[len(m.Extra)-1].(*dns.TSIG)
	switch s.code {
	case dns.RcodeBadKey, dns.RcodeBadSig: // cannot be signed, RFC 8945 section 5.3.2
		return m.Pack()
	case dns.RcodeBadTime:
		var now [8]byte
		binary.BigEndian.PutUint64(now[:], tsig.TimeSigned)
		tsig.TimeSigned, tsig.OtherLen, tsig.OtherData = s.tsig.TimeSigned, 6, hex.EncodeToString(now[2:])
	}
	msg, mac, err := dns.TsigGenerateWithProvider(m, s.ring, s.mac, s.later)
	s.mac, s.later = mac, true
	return msg, err
}

// signed returns the answer to a request that came signed.
func (s *signature) signed(answer []byte) ([]byte, error) {
	var m dns.Msg
	if err := m.Unpack(answer); err != nil {
		return nil, err
	}
	m.Compress = true
	return s.sign(&m)
}
