package assign

import (
	"math"
	"slices"
)

// A flow is a division of classes among PoPs on its way to the optimum.
type flow struct {
	classes []flowClass
	// room is what each PoP may carry, load what it does; closed PoPs get
	// nothing more.
	room, load []int64
	closed     []bool
	// price is each PoP's dual price, 0 or more, 0 while there is room.
	price []int64
	// queues[i][j] orders the classes at PoP i by what moving to j costs, if i is
	// queued: once load has to leave it.
	queues [][]queue
	queued []bool
	// Scratch of path and fill, and the memory of flowClass.at.
	distance []int64
	from     []int
	by       []int32
	done     []bool
	here     []int32
	places   []portion
}

// flowClass is a number of networks with one row of costs and one PoP now.
type flowClass struct {
	costs []int32
	// home is the PoP that the networks have, -1 if none; it is bonus cheaper, at
	// least 1, so that of equally good divisions the one with fewer moves wins.
	home  int
	bonus int64
	units int64
	at    []portion
}

// portion is what of a class is at a PoP.
type portion struct {
	pop   int
	units int64
}

const unreachable = math.MaxInt64

// cost returns what a unit of a class costs at a PoP, unreachable if it must
// not be there.
func (c *flowClass) cost(pop int) int64 {
	cost := c.costs[pop]
	switch {
	case cost == Never:
		return unreachable
	case pop == c.home:
		return int64(cost) - c.bonus
	}
	return int64(cost)
}

// has returns how many units of the class are at a PoP.
func (c *flowClass) has(pop int) int64 {
	for _, p := range c.at {
		if p.pop == pop {
			return p.units
		}
	}
	return 0
}

// add puts units at a PoP, or takes them if negative. It reports whether the
// class had none there before.
func (c *flowClass) add(pop int, units int64) bool {
	for i := range c.at {
		if c.at[i].pop == pop {
			if c.at[i].units += units; c.at[i].units == 0 {
				c.at = slices.Delete(c.at, i, i+1)
			}
			return false
		}
	}
	c.at = append(c.at, portion{pop, units})
	return true
}

// begin puts every class at its cheapest open PoP, whatever its room, which is
// optimal for prices of 0. A class that no open PoP may have is at none. Whatever
// the flow was before, only its memory is left of it.
func (f *flow) begin(classes []flowClass, room []int64, closed []bool) {
	f.empty(classes, room, closed)
	f.places = resized(f.places, len(classes))
	for i := range classes {
		c := &classes[i]
		c.at = f.places[i : i : i+1]
		if best := f.cheapest(c); best >= 0 && c.units > 0 {
			c.at = append(c.at, portion{best, c.units})
			f.load[best] += c.units
		}
	}
}

func (f *flow) empty(classes []flowClass, room []int64, closed []bool) {
	n := len(room)
	f.classes, f.room, f.closed = classes, room, closed
	f.load, f.price, f.queued = resized(f.load, n), resized(f.price, n), resized(f.queued, n)
	clear(f.load)
	clear(f.price)
	clear(f.queued)
	if len(f.queues) != n {
		f.queues = make([][]queue, n)
	}
	f.distance, f.from, f.by, f.done = resized(f.distance, n), resized(f.from, n), resized(f.by, n), resized(f.done, n)
}

// resized returns a slice of n elements of any value, in the same memory if that
// is enough.
func resized[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// without makes f a copy of another flow in which a PoP is closed and has no room,
// so that all its load has to leave: optimal for the prices until it is settled.
func (f *flow) without(lost int, whole *flow) {
	room, closed := slices.Clone(whole.room), slices.Clone(whole.closed)
	room[lost], closed[lost] = 0, true
	f.empty(append(f.classes[:0], whole.classes...), room, closed)
	copy(f.load, whole.load)
	copy(f.price, whole.price)
	f.places = slices.Grow(f.places[:0], 2*len(f.classes))
	for i := range f.classes {
		from := len(f.places)
		f.places = append(f.places, f.classes[i].at...)
		f.classes[i].at = f.places[from:len(f.places):len(f.places)]
	}
}

// cheapest returns the open PoP at which a class costs least at the prices, -1
// if there is none.
func (f *flow) cheapest(c *flowClass) int {
	best, at := int64(unreachable), -1
	for j := range f.room {
		if cost := c.cost(j); cost != unreachable && !f.closed[j] && cost+f.price[j] < best {
			best, at = cost+f.price[j], j
		}
	}
	return at
}

// settle moves load from PoPs with too much to where there is room, at the least
// cost. It returns what could not be moved, because no PoP with room may have
// any of the classes around; it stays where it was.
func (f *flow) settle() (stuck int64) {
	for i := range f.room {
		for f.load[i] > f.room[i] {
			if !f.augment(i) {
				stuck += f.load[i] - f.room[i]
				break
			}
		}
	}
	return stuck
}

// augment moves load from an overfull PoP along the cheapest path to one with
// room; it reports false if there is no path.
func (f *flow) augment(source int) bool {
	sink := f.path(source)
	if sink < 0 {
		return false
	}
	units := min(f.load[source]-f.room[source], f.room[sink]-f.load[sink])
	for j := sink; j != source; j = f.from[j] {
		units = min(units, f.classes[f.by[j]].has(f.from[j]))
	}
	reach := f.distance[sink]
	for j, d := range f.distance {
		if d < reach {
			f.price[j] += reach - d
		}
	}
	for j := sink; j != source; j = f.from[j] {
		f.move(f.by[j], f.from[j], j, units)
	}
	return true
}

// move moves units of a class between two PoPs.
func (f *flow) move(class int32, from, to int, units int64) {
	c := &f.classes[class]
	c.add(from, -units)
	f.load[from] -= units
	f.load[to] += units
	if c.add(to, units) && f.queued[to] {
		f.enqueue(int(class), to)
	}
}

// path runs Dijkstra's algorithm on the PoPs from source until the first one
// with room, and returns that, or -1. Weights are reduced by the prices, so
// that none is negative. PoPs with room have price 0, so no shorter path to
// another one leads through them.
func (f *flow) path(source int) int {
	for i := range f.distance {
		f.distance[i], f.from[i], f.done[i] = unreachable, -1, false
	}
	f.distance[source] = 0
	for {
		at, least := -1, int64(unreachable)
		for i, d := range f.distance {
			if !f.done[i] && d < least {
				at, least = i, d
			}
		}
		if at < 0 || f.load[at] < f.room[at] {
			return at
		}
		f.done[at] = true
		if !f.queued[at] {
			f.fill(at)
		}
		for j := range f.queues[at] {
			if f.done[j] || f.closed[j] {
				continue
			}
			top, ok := f.peek(at, j)
			if !ok {
				continue
			}
			reduced := int64(top.cost) + f.price[j] - f.price[at]
			if d := least + reduced; d < f.distance[j] {
				f.distance[j], f.from[j], f.by[j] = d, at, top.class
			}
		}
	}
}

// fill makes the queues of a PoP.
func (f *flow) fill(pop int) {
	f.here = f.here[:0]
	for i := range f.classes {
		if f.classes[i].has(pop) > 0 {
			f.here = append(f.here, int32(i))
		}
	}
	f.queued[pop] = true
	if len(f.queues[pop]) != len(f.room) {
		f.queues[pop] = make([]queue, len(f.room))
	}
	for j := range f.queues[pop] {
		q := f.queues[pop][j][:0]
		if j != pop && !f.closed[j] {
			q = slices.Grow(q, len(f.here))
			for _, class := range f.here {
				if cost, ok := f.classes[class].moving(pop, j); ok {
					q = append(q, move{cost, class})
				}
			}
			q.order()
		}
		f.queues[pop][j] = q
	}
}

// moving returns what moving a unit between PoPs costs, if it may be moved.
func (c *flowClass) moving(from, to int) (int32, bool) {
	there := c.cost(to)
	if there == unreachable {
		return 0, false
	}
	return int32(there - c.cost(from)), true
}

// enqueue adds a class that is new at a PoP to that PoP's queues.
func (f *flow) enqueue(class, pop int) {
	for j := range f.queues[pop] {
		if j == pop || f.closed[j] {
			continue
		}
		if cost, ok := f.classes[class].moving(pop, j); ok {
			f.queues[pop][j].push(move{cost, int32(class)})
		}
	}
}

// peek returns the cheapest move between two PoPs, past those of classes that
// have left.
func (f *flow) peek(from, to int) (move, bool) {
	q := &f.queues[from][to]
	for len(*q) > 0 {
		if top := (*q)[0]; f.classes[top.class].has(from) > 0 {
			return top, true
		}
		q.pop()
	}
	return move{}, false
}
