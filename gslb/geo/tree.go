package geo

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/oschwald/maxminddb-golang/v2"
)

// errTree says that networks are there again and again, and could be so for ever.
var errTree = errors.New("the search tree is not a tree")

// checkTree makes sure that going through the networks of a database comes to an
// end: that no node is reached twice. The one exception is the node of all IPv4
// addresses, to which IPv6 networks that embed them lead too; those are passed
// over.
func checkTree(db []byte, m maxminddb.Metadata) error {
	switch m.RecordSize {
	case 24, 28, 32:
	default:
		return fmt.Errorf("records of %d bits are not of the format", m.RecordSize)
	}
	octets := m.RecordSize / 4 // of a node, which has two records
	if m.NodeCount > uint(len(db))/octets {
		return errors.New("the search tree is longer than the file")
	}
	child := func(node, side uint) uint {
		b := db[node*octets:][:octets]
		switch m.RecordSize {
		case 24:
			b = b[3*side:]
			return uint(b[0])<<16 | uint(b[1])<<8 | uint(b[2])
		case 28: // the middle octet has the four high bits of both
			high := uint(b[3]) >> (4 - 4*side) & 15
			b = b[4*side:]
			return high<<24 | uint(b[0])<<16 | uint(b[1])<<8 | uint(b[2])
		}
		return uint(binary.BigEndian.Uint32(b[4*side:]))
	}
	ipv4 := m.NodeCount // none
	if m.IPVersion == 6 {
		ipv4 = 0
		for depth := 0; depth < 96 && ipv4 < m.NodeCount; depth++ {
			ipv4 = child(ipv4, 0)
		}
	}
	reached := make([]bool, m.NodeCount)
	for node := range m.NodeCount {
		for side := range uint(2) {
			c := child(node, side)
			if c >= m.NodeCount || c == ipv4 {
				continue
			}
			if c == 0 || reached[c] {
				return errTree
			}
			reached[c] = true
		}
	}
	return nil
}
