package world

import (
	"math"
	"math/rand/v2"
)

// Outage is a PoP that is out from one minute of the day to another.
type Outage struct {
	Pop      int
	From, To int
}

// Outages makes a day's failures: count of them, of half an hour to three hours,
// the first that of a large PoP in its busiest hour.
func (w *World) Outages(seed uint64, count int) []Outage {
	r := rand.New(rand.NewPCG(seed, 3))
	all := []Outage{{Pop: 0, From: 19*60 + 30, To: 21 * 60}}
	for len(all) < count {
		from := r.IntN(Day - 180)
		all = append(all, Outage{Pop: r.IntN(len(w.Pops)), From: from, To: from + 30 + r.IntN(150)})
	}
	return all[:count]
}

// Outcome is what a day under one Steering came to.
type Outcome struct {
	Steering Steering
	// RTT is the distribution over all demand that was served.
	RTT Histogram
	// OverloadMinutes is the sum over PoPs of the minutes above their ceiling,
	// Overflow the share of demand that was above it.
	OverloadMinutes int
	Overflow        float64
	// Fullest is for each minute the utilization of the fullest PoP, Worst the
	// greatest of all.
	Fullest []float64
	Worst   float64
	// Unserved is the share of demand that went to PoPs that had failed.
	Unserved float64
	// Moved is the demand that plans moved by choice, over all demand.
	Moved float64
}

// Play runs a day. DNS steering learns of a failure a minute late, which stands
// for detection and TTL; routing learns at once.
func (w *World) Play(kind Steering, outages []Outage, seed uint64) (Outcome, error) {
	s := newSteerer(w, kind, seed)
	o := Outcome{Steering: kind}
	total, over, lost := 0.0, 0.0, 0.0
	known := make([]bool, len(w.Pops))
	for minute := range Day {
		out := outAt(outages, minute, len(w.Pops))
		seen := out
		if kind != Anycast && kind != Optimum {
			seen = outAt(outages, minute-1, len(w.Pops))
		}
		changed := minute == 0
		for j := range seen {
			changed = changed || seen[j] != known[j]
		}
		known = seen
		if err := s.steer(minute, seen, changed); err != nil {
			return o, err
		}
		load := make([]float64, len(w.Pops))
		activity := w.activity(minute)
		for i, c := range w.Clients {
			d := c.weight * activity[c.Place]
			total += d
			s.each(i, func(pop int, share float64) {
				if out[pop] {
					lost += d * share
					return
				}
				load[pop] += d * share
				o.RTT.Add(w.Places[c.Place].RTT[pop]+c.LastMile, d*share)
			})
		}
		fullest := 0.0
		for j, l := range load {
			u := l / w.Pops[j].Ceiling
			fullest = max(fullest, u)
			if u > 1 {
				o.OverloadMinutes++
				over += l - w.Pops[j].Ceiling
			}
		}
		o.Fullest = append(o.Fullest, fullest)
		o.Worst = max(o.Worst, fullest)
	}
	o.Overflow, o.Unserved, o.Moved = over/total, lost/total, s.moved/(total/Day)
	return o, nil
}

func outAt(outages []Outage, minute, pops int) []bool {
	out := make([]bool, pops)
	for _, o := range outages {
		if minute >= o.From && minute < o.To {
			out[o.Pop] = true
		}
	}
	return out
}

// Histogram is a distribution of round-trip times in steps of a quarter of a
// millisecond up to a second. The zero value is empty.
type Histogram struct {
	weights [4000]float64
	sum     float64 // of weight times RTT
	total   float64
}

// Add adds a round-trip time in ms with a weight.
func (h *Histogram) Add(ms, weight float64) {
	h.weights[min(max(int(ms*4), 0), len(h.weights)-1)] += weight
	h.sum += ms * weight
	h.total += weight
}

// Mean returns the mean in ms; NaN if there is nothing.
func (h *Histogram) Mean() float64 { return h.sum / h.total }

// Quantile returns the RTT in ms that a share q of the weight does not exceed.
func (h *Histogram) Quantile(q float64) float64 {
	sum := 0.0
	for i, weight := range h.weights {
		if sum += weight; sum >= q*h.total && sum > 0 {
			return float64(i+1) / 4
		}
	}
	return math.NaN()
}
