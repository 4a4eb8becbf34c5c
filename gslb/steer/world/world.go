// Package world is a synthetic Internet on which ways of steering are compared:
// PoPs with ceilings, client networks with a demand that follows the local time,
// and the round-trip time from each to each. It is made from a seed and is the
// same each time.
//
// # What is modelled
//
// A round trip takes a millisecond for each 100 km of great circle, times the
// detour of the path, plus the last mile. Detours belong to a provider in a city
// and a PoP: most are a sixth to a half, some paths go round a continent.
//
// Anycast follows how routing decides, which knows neither distance nor latency:
// most providers peer widely and reach a PoP that is near or nearly so; the rest
// reach only the PoPs where their few transit providers connect, and take the
// one that their path to the transit happens to favor. About a fifth of demand so
// reaches a PoP at least 25 ms farther than need be, which is what measurements
// of anycast services find.
//
// What overload does to latency is not modelled: minutes above a ceiling are
// counted instead.
//
// # Concurrency
//
// A World is immutable.
package world

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// Config is the size of a World.
type Config struct {
	Seed    uint64
	Pops    int // 2 to 50
	Clients int // client networks, at least 1
	// Spare is the sum of all ceilings over the greatest total demand of a day.
	Spare float64
}

// World is a synthetic Internet.
type World struct {
	Pops []Pop
	// Places are a provider in a part of a city; clients of one place see the
	// same paths.
	Places  []Place
	Clients []Client
}

// Pop is a point of presence.
type Pop struct {
	Name     string
	Lat, Lon float64
	Ceiling  float64 // in units of demand
}

// Place is where some clients are.
type Place struct {
	Lat, Lon float64
	RTT      []float64 // to each PoP in ms, without the last mile
	km       []float64 // to each PoP
	anycast  []int     // PoPs as routing prefers them, the first ones
	hours    float64   // local time ahead of UTC
	surges   bool      // takes part in the event
}

// Client is a client network.
type Client struct {
	Prefix   netip.Prefix
	Place    int
	LastMile float64 // ms
	weight   float64 // demand at the busiest hour
}

// event is what many in western Europe follow for an evening: minutes of the day
// and the factor by which demand rises.
var event = struct {
	lat, lon, km float64
	from, to     int
	factor       float64
}{lat: 48, lon: 4, km: 900, from: 19*60 + 10, to: 20*60 + 40, factor: 1.35}

const (
	placesPerCity = 12
	preferences   = 8 // PoPs in Place.anycast
)

// New makes a world.
func New(cfg Config) (*World, error) {
	if cfg.Pops < 2 || cfg.Pops > 50 || cfg.Clients < 1 || cfg.Clients > 1<<20 || !(cfg.Spare > 0) {
		return nil, fmt.Errorf("a world of %d PoPs and %d clients with %v to spare cannot be made", cfg.Pops, cfg.Clients, cfg.Spare)
	}
	r := rand.New(rand.NewPCG(cfg.Seed, 0x5eed))
	w := &World{}
	for _, c := range cities[:cfg.Pops] {
		w.Pops = append(w.Pops, Pop{Name: c.code, Lat: c.lat, Lon: c.lon})
	}
	for _, c := range cities {
		for range placesPerCity {
			w.Places = append(w.Places, w.place(r, c))
		}
	}
	w.populate(r, cfg.Clients)
	w.build(r, cfg.Spare)
	return w, nil
}

// place makes a provider near a city and its paths.
func (w *World) place(r *rand.Rand, c city) Place {
	p := Place{
		Lat:   max(-85, min(85, c.lat+2*r.NormFloat64())),
		Lon:   c.lon + 2*r.NormFloat64(),
		RTT:   make([]float64, len(w.Pops)),
		km:    make([]float64, len(w.Pops)),
		hours: c.hours,
	}
	p.surges = distance(p.Lat, p.Lon, event.lat, event.lon) < event.km
	score := make([]float64, len(w.Pops))
	wide := r.Float64() < 0.6
	for j, pop := range w.Pops {
		km := distance(p.Lat, p.Lon, pop.Lat, pop.Lon)
		p.km[j] = km
		detour := 1.15 + 0.2*r.ExpFloat64()
		p.RTT[j] = 0.5 + detour*km/100
		if r.Float64() < 0.04 {
			p.RTT[j] += 15 + 25*r.ExpFloat64()
		}
		switch spread := r.NormFloat64(); {
		case wide:
			score[j] = (km + 150) * math.Exp(0.25*spread)
		case r.Float64() < 0.3: // a transit connects here
			score[j] = (km + 1500) * math.Exp(0.5*spread)
		default:
			score[j] = 1e6 + km
		}
	}
	order := make([]int, len(w.Pops))
	for j := range order {
		order[j] = j
	}
	slices.SortFunc(order, func(a, b int) int {
		if score[a] < score[b] {
			return -1
		}
		return 1
	})
	p.anycast = order[:min(preferences, len(order))]
	return p
}

// populate makes the clients: cities have them by their people, and few networks
// have most of the demand.
func (w *World) populate(r *rand.Rand, count int) {
	sums, sum := make([]float64, len(cities)), 0.0
	for i, c := range cities {
		sum += math.Pow(c.people, 0.7) // the largest cities are not the best connected
		sums[i] = sum
	}
	for i := range count {
		at, _ := slices.BinarySearch(sums, r.Float64()*sum)
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 11<<24+uint32(i)<<8)
		w.Clients = append(w.Clients, Client{
			Prefix:   netip.PrefixFrom(netip.AddrFrom4(b), 24),
			Place:    at*placesPerCity + r.IntN(placesPerCity),
			LastMile: 2 + 6*r.ExpFloat64(),
			weight:   min(50, math.Exp(1.3*r.NormFloat64())),
		})
	}
}

// build gives the PoPs ceilings as operators do: by the busiest time that the
// clients nearest to them have, in halls that come in sizes, and some long
// outgrown.
func (w *World) build(r *rand.Rand, spare float64) {
	peak, greatest := make([]float64, len(w.Pops)), 0.0
	for minute := 0; minute < Day; minute += 30 {
		load, total := make([]float64, len(w.Pops)), 0.0
		activity := w.activity(minute)
		for _, c := range w.Clients {
			d := c.weight * activity[c.Place]
			load[least(w.Places[c.Place].km, nil)] += d
			total += d
		}
		greatest = max(greatest, total)
		for j := range peak {
			peak[j] = max(peak[j], load[j])
		}
	}
	sum := 0.0
	for j := range w.Pops {
		size := (peak[j] + 0.25*greatest/float64(len(w.Pops))) * (0.8 + 0.6*r.Float64())
		w.Pops[j].Ceiling = size
		sum += size
	}
	for j := range w.Pops {
		w.Pops[j].Ceiling *= spare * greatest / sum
	}
}

// Day is the number of minutes in a day.
const Day = 24 * 60

// activity returns for each place the share of their greatest demand that clients
// have at a minute of the day, UTC.
func (w *World) activity(minute int) []float64 {
	all := make([]float64, len(w.Places))
	for i := range w.Places {
		p := &w.Places[i]
		hour := float64(minute)/60 + p.hours
		// Least around five in the morning, most around eight in the evening.
		all[i] = 0.62 + 0.30*math.Cos((hour-20)*2*math.Pi/24) + 0.08*math.Cos((hour-13)*4*math.Pi/24)
		if p.surges && minute > event.from && minute < event.to {
			ramp := min(1, float64(minute-event.from)/20, float64(event.to-minute)/20)
			all[i] *= 1 + ramp*(event.factor-1)
		}
	}
	return all
}

// least returns the index of the least value of those not out, -1 if all are.
func least(values []float64, out []bool) int {
	best, at := math.Inf(1), -1
	for j, v := range values {
		if v < best && (out == nil || !out[j]) {
			best, at = v, j
		}
	}
	return at
}

// distance is that on the great circle in km, by the haversine formula.
func distance(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	square := func(x float64) float64 { return math.Sin(x/2) * math.Sin(x/2) }
	h := square((lat2-lat1)*rad) + math.Cos(lat1*rad)*math.Cos(lat2*rad)*square((lon2-lon1)*rad)
	return 2 * 6371 * math.Asin(math.Min(1, math.Sqrt(h)))
}
