package geo

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"testing"
)

// database is a MaxMind DB file to be written, as
// https://maxmind.github.io/MaxMind-DB/ specifies the format.
type database struct {
	recordSize int // bits of a record: 24, 28 or 32
	ipVersion  int
	networks   map[string]any // data by prefix; they do not overlap
	aliases    map[string]string
}

// A record of the tree: a node, data, or nothing.
type ref struct {
	kind refKind
	to   int // index of a node, or offset in the data section
}

type refKind int

const (
	nothing refKind = iota
	node
	data
)

const dataSeparator = 16

func (db *database) bytes(t testing.TB) []byte {
	t.Helper()
	nodes := [][2]ref{{}}
	var section []byte
	offsets := make(map[string]int) // data that is there already
	// bit returns that of an address in the tree.
	bit := func(p netip.Prefix, i int) byte {
		octets := p.Addr().AsSlice()
		if p.Addr().Is4() && db.ipVersion == 6 {
			octets = append(make([]byte, 12), octets...)
		}
		return octets[i/8] >> (7 - i%8) & 1
	}
	depth := func(p netip.Prefix) int {
		if p.Addr().Is4() && db.ipVersion == 6 {
			return 96 + p.Bits()
		}
		return p.Bits()
	}
	// walk returns the record that stands for a prefix.
	walk := func(p netip.Prefix) *ref {
		at := 0
		for i := range depth(p) - 1 {
			r := &nodes[at][bit(p, i)]
			if r.kind == nothing {
				*r = ref{node, len(nodes)}
				nodes = append(nodes, [2]ref{})
				r = &nodes[at][bit(p, i)]
			}
			if r.kind != node {
				t.Fatalf("%v overlaps another network", p)
			}
			at = r.to
		}
		return &nodes[at][bit(p, depth(p)-1)]
	}
	for _, prefix := range sortedKeys(db.networks) {
		encoded := encode(db.networks[prefix])
		offset, known := offsets[string(encoded)]
		if !known {
			offset = len(section)
			offsets[string(encoded)] = offset
			section = append(section, encoded...)
		}
		*walk(netip.MustParsePrefix(prefix)) = ref{data, offset}
	}
	for _, prefix := range sortedKeys(db.aliases) {
		to := *walk(netip.MustParsePrefix(db.aliases[prefix]))
		*walk(netip.MustParsePrefix(prefix)) = to
	}

	var out []byte
	number := func(r ref) uint32 {
		switch r.kind {
		case node:
			return uint32(r.to)
		case data:
			return uint32(len(nodes) + dataSeparator + r.to)
		}
		return uint32(len(nodes))
	}
	for _, n := range nodes {
		left, right := number(n[0]), number(n[1])
		three := func(v uint32) { out = append(out, byte(v>>16), byte(v>>8), byte(v)) }
		switch db.recordSize {
		case 24:
			three(left)
			three(right)
		case 28:
			three(left)
			out = append(out, byte(left>>24)<<4|byte(right>>24)&15)
			three(right)
		case 32:
			out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(out, left), right)
		}
	}
	out = append(out, make([]byte, dataSeparator)...)
	out = append(out, section...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	return append(out, encode(map[string]any{
		"node_count": uint32(len(nodes)), "record_size": uint16(db.recordSize), "ip_version": uint16(db.ipVersion),
		"database_type": "Test", "languages": []any{}, "description": map[string]any{"en": "of a test"},
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0), "build_epoch": uint64(1_700_000_000),
	})...)
}

// encode writes a value of the data section.
func encode(value any) []byte {
	head := func(kind, size int) []byte {
		if kind > 7 {
			return []byte{byte(size), byte(kind - 7)}
		}
		return []byte{byte(kind<<5 | size)}
	}
	unsigned := func(kind int, v uint64) []byte {
		octets := binary.BigEndian.AppendUint64(nil, v)
		for len(octets) > 0 && octets[0] == 0 {
			octets = octets[1:]
		}
		return append(head(kind, len(octets)), octets...)
	}
	switch v := value.(type) {
	case string:
		if len(v) >= 29 {
			return append([]byte{2<<5 | 29, byte(len(v) - 29)}, v...)
		}
		return append(head(2, len(v)), v...)
	case float64:
		return binary.BigEndian.AppendUint64(head(3, 8), math.Float64bits(v))
	case uint16:
		return unsigned(5, uint64(v))
	case uint32:
		return unsigned(6, uint64(v))
	case uint64:
		return unsigned(9, v)
	case []any:
		out := head(11, len(v))
		for _, each := range v {
			out = append(out, encode(each)...)
		}
		return out
	case map[string]any:
		out := head(7, len(v))
		for _, key := range sortedKeys(v) {
			out = append(append(out, encode(key)...), encode(v[key])...)
		}
		return out
	}
	panic("no such type in a test")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Records as databases of cities and countries have them.
func city(lat, lon float64) any {
	return map[string]any{"location": map[string]any{"latitude": lat, "longitude": lon, "time_zone": "Europe/Paris"}, "country": map[string]any{"iso_code": "US"}}
}

func zoneOnly(zone, country string) any {
	return map[string]any{"location": map[string]any{"time_zone": zone}, "country": map[string]any{"iso_code": country, "geoname_id": uint32(6252001)}}
}

func country(code string) any {
	return map[string]any{"country": map[string]any{"iso_code": code, "names": map[string]any{"en": "a name"}}, "registered_country": map[string]any{"iso_code": "AU"}}
}

func flat(code string) any { return map[string]any{"country_code": code} }
