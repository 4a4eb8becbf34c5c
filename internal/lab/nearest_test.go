package lab

import (
	"math"
	"math/rand/v2"
	"testing"

	"anyedge/configs"
)

func TestNearestOfKnownPlaces(t *testing.T) {
	l := &Lab{cfg: configs.DefaultLab()} // Frankfurt, Ashburn and Singapore
	for _, c := range []struct {
		place    string
		lat, lon float64
		want     string
	}{
		{"Paris", 48.86, 2.35, "fra"},
		{"Reykjavik", 64.15, -21.94, "fra"},
		{"Cairo", 30.04, 31.24, "fra"},
		{"New York", 40.71, -74.01, "iad"},
		{"São Paulo", -23.55, -46.63, "iad"},
		{"Honolulu", 21.31, -157.86, "iad"},
		{"Tokyo", 35.68, 139.69, "sin"},
		{"Auckland, by the way of Asia", -36.85, 174.76, "sin"},
	} {
		if got := l.nearest(configs.LabClients{Latitude: c.lat, Longitude: c.lon}); got != c.want {
			t.Errorf("%s is nearest to %s, want %s", c.place, got, c.want)
		}
	}
}

func TestNearestCrossesTheDateLine(t *testing.T) {
	l := &Lab{cfg: &configs.Lab{Pops: []configs.LabPop{{Name: "west", Longitude: -120}, {Name: "east", Longitude: 179}}}}
	if got := l.nearest(configs.LabClients{Longitude: -179}); got != "east" {
		t.Errorf("two degrees over the date line: %s", got)
	}
}

// The order of places by chord is that by great circle, which is computed here
// by the haversine formula.
func TestChordOrdersLikeTheGreatCircle(t *testing.T) {
	haversine := func(lat1, lon1, lat2, lon2 float64) float64 {
		const r = math.Pi / 180
		square := func(x float64) float64 { return x * x }
		h := square(math.Sin((lat2-lat1)*r/2)) + math.Cos(lat1*r)*math.Cos(lat2*r)*square(math.Sin((lon2-lon1)*r/2))
		return 2 * math.Asin(math.Sqrt(min(h, 1)))
	}
	random := rand.New(rand.NewPCG(1, 2))
	place := func() (lat, lon float64) { return 180*random.Float64() - 90, 360*random.Float64() - 180 }
	for range 10_000 {
		lat, lon := place()
		lat1, lon1 := place()
		lat2, lon2 := place()
		near, far := haversine(lat, lon, lat1, lon1), haversine(lat, lon, lat2, lon2)
		if math.Abs(near-far) < 1e-9 {
			continue
		}
		if chord(lat, lon, lat1, lon1) < chord(lat, lon, lat2, lon2) != (near < far) {
			t.Fatalf("%v,%v to %v,%v and %v,%v", lat, lon, lat1, lon1, lat2, lon2)
		}
	}
}
