package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"anyedge/gslb/steer"
)

// Sizes of the image, as in bpf/dns.c.
const (
	pageSize   = 4096
	unit       = 8 // places of records count in these
	headerSize = 24
	slots      = 16
	bucketSize = 8 * slots

	nameMax      = 128
	typesMax     = 16
	bodyMax      = 512
	movingMax    = 8
	addressesMax = 8

	entrySize     = 16
	typeSize      = 8
	answerSize    = 48
	steeringSize  = 16
	addressesSize = 8 + addressesMax*16
)

// imageMax bounds the memory of an image, in octets.
const imageMax = 1 << 30

var errTooLarge = fmt.Errorf("the image is larger than %d MB", imageMax>>20)

var native = binary.NativeEndian

// image is a table in the form that the program reads: pages of records that
// refer to each other by their places, and never change. What the program has no
// room for is left out in a way that leaves it to the sockets.
//
// The first page has the header; then come the buckets of names; then, as they
// are made, trees and other records, on pages of their own.
type image struct {
	octets  []byte
	records int // where the next record goes; on a new page if it is at the start of one
	nodes   int // where the next node goes; likewise

	names     []entered
	answers   map[*Answer]uint32
	steerings map[*steer.Decisions]uint32
	regions   map[*steer.Regions][2]uint32
	addresses map[string]uint32
}

// entered is a name and its entry's place.
type entered struct {
	name  string
	place uint32
}

// build makes the image of a table. exempt are the networks without rate limit.
func build(t *Table, exempt []netip.Prefix) ([]byte, error) {
	m := &image{
		octets:    make([]byte, pageSize),
		answers:   make(map[*Answer]uint32),
		steerings: make(map[*steer.Decisions]uint32),
		regions:   make(map[*steer.Regions][2]uint32),
		addresses: make(map[string]uint32),
	}
	for name, e := range t.Names {
		// Names below a longer one are longer, and the program looks for neither.
		if len(name) <= nameMax {
			m.names = append(m.names, entered{name, m.entry(name, e)})
		}
		if len(m.octets) > imageMax {
			return nil, errTooLarge
		}
	}
	for family := range 2 {
		root := m.exempt(steer.Family(family), exempt) // moves the octets
		native.PutUint32(m.octets[16+4*family:], root)
	}
	if err := m.index(); err != nil {
		return nil, err
	}
	if len(m.octets) > imageMax {
		return nil, errTooLarge
	}
	return m.octets, nil
}

// page appends a page and returns where it begins.
func (m *image) page() int {
	at := len(m.octets)
	m.octets = append(m.octets, make([]byte, pageSize)...)
	return at
}

// record makes room for a record. The program wants to be sure of most octets
// behind the beginning within one page, whatever the size.
func (m *image) record(size, most int) (record []byte, place uint32) {
	if m.records%pageSize == 0 || m.records%pageSize > pageSize-most {
		m.records = m.page()
	}
	at := m.records
	m.records += (size + unit - 1) / unit * unit
	return m.octets[at:m.records:m.records], uint32(at / unit)
}

// array makes room for what may take more than a page, and is read by units.
func (m *image) array(size int) (array []byte, place uint32) {
	if m.records%pageSize == 0 || m.records%pageSize+size > pageSize {
		m.records = m.page()
		for room := pageSize; room < size; room += pageSize {
			m.page()
		}
	}
	at := m.records
	m.records += (size + unit - 1) / unit * unit
	return m.octets[at : at+size], uint32(at / unit)
}

// Fits reports whether the program has room for an answer at or below a name that
// has so many types. What it has no room for it leaves to the sockets.
func (a *Answer) Fits(name string, types int) bool {
	return len(name) <= nameMax && types <= typesMax && a.fits()
}

func (a *Answer) fits() bool {
	if len(a.Body) > bodyMax || len(a.Moving) > movingMax || a.Base > nameMax {
		return false
	}
	return a.Steering == nil || !slices.ContainsFunc(a.Steering.Addrs, func(set []netip.Addr) bool { return len(set) > addressesMax })
}

func (m *image) entry(name string, e Entry) (place uint32) {
	if len(e.At.Types)+len(e.Below.Types) > typesMax {
		e = Entry{}
	}
	// The answers go first: a record ends with the next.
	types := make([]byte, 0, typesMax*typeSize)
	for _, list := range [][]Typed{e.At.Types, e.Below.Types} {
		for _, t := range list {
			types = native.AppendUint32(types, uint32(t.Type))
			types = native.AppendUint32(types, m.answer(t.Answer))
		}
	}
	other, below := m.answer(e.At.Other), m.answer(e.Below.Other)
	r, place := m.record(entrySize+len(types)+len(name), entrySize+typesMax*typeSize+nameMax)
	r[0], r[1], r[2] = byte(len(name)), byte(len(e.At.Types)), byte(len(e.Below.Types))
	native.PutUint32(r[4:], other)
	native.PutUint32(r[8:], below)
	copy(r[entrySize:], types)
	copy(r[entrySize+len(types):], name)
	return place
}

// answer returns the place of an answer; 0 leaves it to the sockets.
func (m *image) answer(a *Answer) (place uint32) {
	if a == nil || !a.fits() {
		return 0
	}
	if place, done := m.answers[a]; done {
		return place
	}
	steering := uint32(0)
	if a.Steering != nil {
		steering = m.steering(a.Steering)
	}
	r, place := m.record(answerSize+len(a.Body), answerSize+bodyMax)
	native.PutUint64(r, a.ID)
	binary.BigEndian.PutUint16(r[8:], a.Flags)
	for i, n := range a.Counts {
		binary.BigEndian.PutUint16(r[10+2*i:], n)
	}
	native.PutUint32(r[16:], steering)
	binary.BigEndian.PutUint32(r[20:], uint32(a.TTL/time.Second))
	binary.BigEndian.PutUint16(r[24:], a.Owner)
	native.PutUint16(r[26:], uint16(len(a.Body)))
	r[28] = byte(a.Base)
	if a.Secure {
		r[29] = 1
	}
	r[30], r[31] = byte(a.Family), byte(len(a.Moving))
	for i, at := range a.Moving {
		native.PutUint16(r[32+2*i:], at)
	}
	copy(r[answerSize:], a.Body)
	m.answers[a] = place
	return place
}

// steering returns the place of decisions, which is never 0.
func (m *image) steering(d *steer.Decisions) (place uint32) {
	if place, done := m.steerings[d]; done {
		return place
	}
	nowhere := decisionOf(d.Nowhere)
	trees := [2]uint32{leaf(0, nowhere), leaf(0, nowhere)}
	if d.Regions != nil {
		var done bool
		if trees, done = m.regions[d.Regions]; !done {
			for _, f := range []steer.Family{steer.IPv4, steer.IPv6} {
				trees[f] = m.tree(d.Regions.All(f))
			}
			m.regions[d.Regions] = trees
		}
	}
	sets := make([]uint32, len(d.Addrs))
	for i, set := range d.Addrs {
		sets[i] = m.set(set)
	}
	choices, first := m.array(len(sets) * 4)
	for i, set := range sets {
		native.PutUint32(choices[4*i:], set)
	}
	r, place := m.record(steeringSize, steeringSize)
	native.PutUint32(r, trees[0])
	native.PutUint32(r[4:], trees[1])
	native.PutUint32(r[8:], nowhere)
	native.PutUint32(r[12:], first)
	m.steerings[d] = place
	return place
}

// set returns the place of addresses, all of one family and not too many; 0 if there
// are none.
func (m *image) set(addrs []netip.Addr) (place uint32) {
	if len(addrs) == 0 {
		return 0
	}
	octets := make([]byte, 0, addressesMax*16)
	for _, a := range addrs {
		octets = append(octets, a.AsSlice()...)
	}
	key := string(octets)
	if place, done := m.addresses[key]; done {
		return place
	}
	r, place := m.record(8+len(octets), addressesSize)
	native.PutUint32(r, uint32(len(addrs)))
	copy(r[8:], octets)
	m.addresses[key] = place
	return place
}

// index writes the buckets at the end of the image and completes the header.
func (m *image) index() error {
	// A quarter of the slots at first: a bucket that overflows is a matter of luck,
	// and more buckets or another seed are the remedy.
	count := 1 << bits.Len(uint(len(m.names)*4/slots))
	for seed := uint64(1); ; seed++ {
		if pages := (count*bucketSize + pageSize - 1) / pageSize; len(m.octets)+pages*pageSize > imageMax {
			return errTooLarge
		} else if octets, ok := m.bucketed(seed, count, pages); ok {
			native.PutUint64(m.octets, seed)
			native.PutUint32(m.octets[8:], uint32(count-1))
			native.PutUint32(m.octets[12:], uint32(len(m.octets)/pageSize))
			m.octets = append(m.octets, octets...)
			return nil
		}
		if seed%4 == 0 {
			count *= 2
		}
		if seed == 64 {
			return errors.New("names do not fit into buckets")
		}
	}
}

// bucketed returns so many buckets with all names; it fails if one overflows, or
// has two names that the program could not tell apart.
func (m *image) bucketed(seed uint64, count, pages int) ([]byte, bool) {
	octets := make([]byte, pages*pageSize)
	for _, n := range m.names {
		h := hash(n.name, seed)
		bucket := octets[int(uint32(h)&uint32(count-1))*bucketSize:][:bucketSize]
		tag, at := uint32(h>>32), 0
		for ; at < bucketSize && native.Uint32(bucket[at+4:]) != 0; at += 8 {
			if native.Uint32(bucket[at:]) == tag {
				return nil, false
			}
		}
		if at == bucketSize {
			return nil, false
		}
		native.PutUint32(bucket[at:], tag)
		native.PutUint32(bucket[at+4:], n.place)
	}
	return octets, true
}

// hash is the program's hash of a name, which reads 8 octets at a time.
func hash(name string, h uint64) uint64 {
	for len(name) > 0 {
		var word [8]byte
		name = name[copy(word[:], name):]
		h = (h ^ native.Uint64(word[:])) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return h
}
