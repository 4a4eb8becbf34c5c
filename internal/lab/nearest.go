package lab

import (
	"math"

	"anyedge/configs"
)

// nearest names the PoP closest to a client network. It measures the straight
// line through the globe, which orders places like the great circle does, so
// that the story does not check the DNS against the DNS's own arithmetic.
func (l *Lab) nearest(c configs.LabClients) string {
	var best string
	shortest := math.Inf(1)
	for _, p := range l.cfg.Pops {
		if d := chord(c.Latitude, c.Longitude, p.Latitude, p.Longitude); d < shortest {
			best, shortest = p.Name, d
		}
	}
	return best
}

// chord is the squared straight distance of two places on a globe of radius 1.
func chord(lat1, lon1, lat2, lon2 float64) float64 {
	x1, y1, z1 := point(lat1, lon1)
	x2, y2, z2 := point(lat2, lon2)
	return (x1-x2)*(x1-x2) + (y1-y2)*(y1-y2) + (z1-z2)*(z1-z2)
}

func point(lat, lon float64) (x, y, z float64) {
	const degree = math.Pi / 180
	lat, lon = lat*degree, lon*degree
	return math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)
}
