package edge

import (
	"errors"
	"testing"
	"time"
)

func TestFailoverReadsResults(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	request := func(begin, end int, pop string) Result {
		r := Result{Start: at(begin), Opened: at(begin), End: at(end), Answer: Answer{Pop: pop}}
		if pop == "" {
			r.Err = errors.New("reset")
		}
		return r
	}
	for name, c := range map[string]struct {
		results                 Results
		served, moved, returned time.Time
	}{
		"before the event": {Results{request(-5, -1, "iad")}, time.Time{}, time.Time{}, time.Time{}},
		"stays":            {Results{request(1, 2, "fra"), request(3, 4, "fra")}, time.Time{}, time.Time{}, time.Time{}},
		"moves":            {Results{request(1, 2, "fra"), request(3, 4, "iad"), request(5, 6, "iad")}, at(4), at(4), time.Time{}},
		// Who lost the first segment does not hold up the others.
		"moves, one slow": {Results{request(1, 2, "fra"), request(5, 6, "iad"), request(3, 1003, "iad")}, at(6), at(6), time.Time{}},
		"moves for good":  {Results{request(1, 2, "iad"), request(3, 4, "fra"), request(5, 6, ""), request(7, 8, "iad")}, at(2), at(8), time.Time{}},
		"comes back":      {Results{request(1, 2, "iad"), request(3, 4, "fra")}, at(2), time.Time{}, at(4)},
		"fails and stays": {Results{request(1, 2, ""), request(3, 4, "fra")}, time.Time{}, time.Time{}, at(4)},
		"fails at last":   {Results{request(1, 2, "iad"), request(3, 4, "")}, at(2), time.Time{}, time.Time{}},
	} {
		f := Failover{At: start}
		f.read(c.results, nil, "fra")
		if f.Served != c.served || f.Moved != c.moved || f.Returned != c.returned {
			t.Errorf("%s: served %v, moved %v, returned %v; want %v, %v, %v", name,
				f.Served.Sub(start), f.Moved.Sub(start), f.Returned.Sub(start), c.served.Sub(start), c.moved.Sub(start), c.returned.Sub(start))
		}
	}
}

func TestCutOffIsWithoutAChangeOfRoutes(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	broken := func(opened, broke int) Result {
		return Result{Opened: at(opened), BrokenAt: at(broke), Broken: errors.New("reset")}
	}
	turn := int(turnTime / time.Millisecond)
	f := Failover{
		At: start, Turned: []time.Time{at(1000), at(5000)},
		Results: Results{{Opened: at(3000)}, broken(990, 1005), broken(1000+turn+1, 5000-turn-1), broken(1000+turn-1, 3000)},
		Kept:    Results{broken(0, 4000), broken(5000+turn+1, 6000)},
	}
	cut := f.CutOff()
	if len(cut) != 2 || cut[0].Opened != at(1000+turn+1) || cut[1].Opened != at(5000+turn+1) {
		t.Errorf("cut off: %+v", cut)
	}
}
