package steer

import "math"

// place is a point on the unit sphere.
type place [3]float64

// placeOf returns the point at degrees north and east.
func placeOf(lat, lon float64) place {
	phi, lambda := lat*math.Pi/180, lon*math.Pi/180
	return place{
		math.Cos(phi) * math.Cos(lambda),
		math.Cos(phi) * math.Sin(lambda),
		math.Sin(phi),
	}
}

// chord returns the square of the straight line between two points. It grows
// with the great circle distance, which is all that comparing needs, and keeps
// its precision for close points, unlike their scalar product.
func (p place) chord(q place) float64 {
	x, y, z := p[0]-q[0], p[1]-q[1], p[2]-q[2]
	return x*x + y*y + z*z
}

// nearest returns the index of the candidate closest to p; the first of equals.
func nearest(p place, candidates []candidate) int32 {
	best, at := math.Inf(1), 0
	for i := range candidates {
		if d := p.chord(candidates[i].pop.place); d < best {
			best, at = d, i
		}
	}
	return int32(at)
}
