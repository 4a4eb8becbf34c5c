package geo

import (
	"fmt"
	"math"

	"anyedge/gslb/steer"
	"anyedge/internal/cidr"
)

// Cells of the grid per degree: at first, and at last, below which a map is of no
// use.
const (
	finest   = 10
	coarsest = 0.1
)

// merger collects networks that come in their order and do not overlap, and joins
// neighbors with one place.
type merger struct {
	clients   []steer.Client
	limit     int
	perDegree float64
}

func newMerger(limit int) *merger { return &merger{limit: limit, perDegree: finest} }

// add adds a network. It fails when there is no room on the coarsest grid.
func (m *merger) add(c steer.Client) error {
	m.put(c)
	for len(m.clients) > m.limit {
		if m.perDegree /= 2; m.perDegree < coarsest {
			return fmt.Errorf("more than %d networks, however coarse their places", m.limit)
		}
		all := m.clients
		m.clients = m.clients[:0] // what is put there has been read
		for _, each := range all {
			m.put(each)
		}
	}
	return nil
}

func (m *merger) put(c steer.Client) {
	c.Lat, c.Lon = m.snap(c.Lat, 90), m.snap(c.Lon, 180)
	for len(m.clients) > 0 {
		last := m.clients[len(m.clients)-1]
		if last.Lat != c.Lat || last.Lon != c.Lon || last.Prefix.Bits() != c.Prefix.Bits() {
			break
		}
		above := parent(c.Prefix)
		if !above.IsValid() || parent(last.Prefix) != above {
			break
		}
		m.clients = m.clients[:len(m.clients)-1]
		c.Prefix = above
	}
	m.clients = append(m.clients, c)
}

// snap rounds degrees to the grid.
func (m *merger) snap(d, limit float64) float64 {
	d = math.Round(d*m.perDegree) / m.perDegree
	return max(-limit, min(d, limit)) + 0 // and no negative zero
}

// parent returns the network of twice the size around p, the zero one if there
// is none.
func parent(p cidr.Prefix) cidr.Prefix {
	above, _ := p.Addr().Prefix(p.Bits() - 1)
	return cidr.From(above)
}
