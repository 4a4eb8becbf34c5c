package rtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// The encoding, all integers varints of package encoding/binary:
//
//	version (2), length of the PoP's name, name, seconds since 1970,
//	half-life in seconds,
//	for IPv4 and then IPv6: number of entries, entries in order
//
// An entry is the distance of its network from the one before, in units of the
// longest prefix, then a byte with the RTT, then one with the index of its
// length among lengths times 32 plus its weight, then one with the requests for each
// unit of the weight. All are logarithmic: an RTT is off by 2 % at most, a weight by a
// fifth, requests for each by 3 %. That makes five to eight bytes.
//
// Version 1 had no requests. It is still read: an older node's connections are taken
// to make as many as usual.
const (
	version    = 2
	oldest     = 1
	maxName    = 255
	maxEntries = 1 << 20
	smallest   = 1024 // the least limit that Encode takes
)

// rttStep is such that 255 steps lead from Least to Greatest.
var rttStep = math.Log(float64(Greatest)/float64(Least)) / 255

// weightStep is the logarithm between two codes of a weight, 31 of which lead
// from MinWeight to about 30,000 connections.
const weightStep = 0.36

func rttCode(d time.Duration) byte {
	return byte(min(255, max(0, math.Round(math.Log(float64(d)/float64(Least))/rttStep))))
}

func rttOf(code byte) time.Duration {
	return time.Duration(float64(Least) * math.Exp(float64(code)*rttStep))
}

func weightCode(w float64) byte {
	return byte(min(31, max(0, math.Round(math.Log(w/MinWeight)/weightStep))))
}

func weightOf(code byte) float64 { return MinWeight * math.Exp(float64(code)*weightStep) }

// usual is how many requests a connection is taken to make if its node does not say.
const usual = 10

// The codes of requests for each connection: 0 for none, then from least to most.
const (
	leastRequests = 1.0 / 64
	mostRequests  = 1e5
)

var requestsStep = math.Log(mostRequests/leastRequests) / 254

func requestsCode(each float64) byte {
	return byte(min(255, max(0, 1+math.Round(math.Log(each/leastRequests)/requestsStep))))
}

func requestsOf(code byte) float64 {
	if code == 0 {
		return 0
	}
	return leastRequests * math.Exp(float64(code-1)*requestsStep)
}

// Encode appends the encoding of a snapshot to b, at most limit bytes of it. So
// that it fits, the networks with the fewest connections are merged upward. The
// limit is at least 1024, enough for a snapshot with nothing in it.
func (s Snapshot) Encode(b []byte, limit int) ([]byte, error) {
	if len(s.Pop) == 0 || len(s.Pop) > maxName {
		return nil, fmt.Errorf("rtt snapshot: a PoP's name has 1 to %d bytes, not %d", maxName, len(s.Pop))
	}
	if s.HalfLife < time.Second || s.At.Unix() < 0 || limit < smallest {
		return nil, fmt.Errorf("rtt snapshot: a half-life of %v at %v in %d bytes cannot be encoded", s.HalfLife, s.At, limit)
	}
	for weight := 2 * MinWeight; ; weight *= 2 {
		if encoded := s.encode(b); len(encoded)-len(b) <= limit && len(s.Entries) <= maxEntries {
			return encoded, nil
		}
		s = s.coarser(weight)
	}
}

func (s Snapshot) encode(b []byte) []byte {
	b = append(b, version, byte(len(s.Pop)))
	b = append(b, s.Pop...)
	b = binary.AppendUvarint(b, uint64(s.At.Unix()))
	b = binary.AppendUvarint(b, uint64(s.HalfLife/time.Second))
	v6 := slices.IndexFunc(s.Entries, func(e Entry) bool { return e.Prefix.Addr().Is6() })
	if v6 < 0 {
		v6 = len(s.Entries)
	}
	for family, entries := range [2][]Entry{s.Entries[:v6], s.Entries[v6:]} {
		b = binary.AppendUvarint(b, uint64(len(entries)))
		last := uint64(0)
		for _, e := range entries {
			n := number(e.Prefix.Addr())
			b = binary.AppendUvarint(b, n-last)
			last = n
			length := slices.Index(lengths[family], e.Prefix.Bits())
			b = append(b, rttCode(e.RTT), byte(length)<<5|weightCode(e.Weight), requestsCode(e.Requests/e.Weight))
		}
	}
	return b
}

// number is an address in units of the longest prefix of its family.
func number(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]) >> 8)
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:]) >> 16
}

// address is the inverse of number.
func address(n uint64, family int) netip.Addr {
	if family == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n)<<8)
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], n<<16)
	return netip.AddrFrom16(b)
}

// Decode reads a snapshot, of this version or an older one. What others have written is not trusted: entries out
// of order, networks out of range and what follows the end are errors, and no
// more memory is taken than the length of b justifies.
func Decode(b []byte) (Snapshot, error) {
	d := decoder{b: b}
	of := d.byte()
	if of < oldest || of > version {
		d.fail("unknown version")
	}
	s := Snapshot{Pop: string(d.bytes(int(d.byte())))}
	if s.Pop == "" {
		d.fail("no name of a PoP")
	}
	s.At = time.Unix(int64(d.uvarint(1<<40)), 0)
	s.HalfLife = time.Duration(d.uvarint(1<<20)) * time.Second
	if s.HalfLife == 0 {
		d.fail("no half-life")
	}
	for family := range lengths {
		d.entries(&s, family, of)
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail("more after its end")
	}
	if d.err != nil {
		return Snapshot{}, fmt.Errorf("rtt snapshot: %w", d.err)
	}
	return s, nil
}

func (d *decoder) entries(s *Snapshot, family int, of byte) {
	const leastSize = 3 // of an entry of the oldest version
	count := d.uvarint(maxEntries)
	if count > uint64(len(d.b)/leastSize) {
		d.fail("ends too early")
		return
	}
	s.Entries = slices.Grow(s.Entries, int(count))
	units := uint64(1) << lengths[family][0]
	at := uint64(0)
	for range count {
		at += d.uvarint(units)
		rtt, kind := d.byte(), d.byte()
		requests := float64(usual)
		if of > 1 {
			requests = requestsOf(d.byte())
		}
		length := int(kind >> 5)
		if d.err == nil && (at >= units || length >= len(lengths[family])) {
			d.fail("a network is out of range")
		}
		if d.err != nil {
			return
		}
		p := netip.PrefixFrom(address(at, family), lengths[family][length])
		if p != p.Masked() || len(s.Entries) > 0 && s.Entries[len(s.Entries)-1].Prefix.Compare(p) >= 0 {
			d.fail("networks are not in order")
			return
		}
		weight := weightOf(kind & 31)
		s.Entries = append(s.Entries, Entry{p, rttOf(rtt), weight, requests * weight})
	}
}

// decoder takes values off b. After an error all are zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = errors.New(why)
	}
	d.b = nil
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail("ends too early")
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > most {
		d.fail("a number is out of range")
		return 0
	}
	d.b = d.b[n:]
	return v
}
