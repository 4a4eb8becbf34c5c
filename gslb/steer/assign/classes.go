package assign

import (
	"hash/maphash"
	"math"
	"slices"
)

// classifier puts like rows together.
type classifier struct {
	class []int32   // of each row
	costs [][]int32 // of each class: those of its only row, or the mean of its rows weighted by their demand

	// Scratch: of group, and of mean, which has the rows in the order of their
	// classes.
	known  map[[2]uint64]int32
	seeds  [2]maphash.Seed
	key    []byte
	order  []int32
	starts []int32
	means  []int32 // memory of costs
	sum    []float64
}

// equal puts rows together that are equal but for a constant, which changes no
// decision. It reports false, and does nothing, if that makes more than limit
// classes.
func (c *classifier) equal(rows [][]int32, demand []int64, limit int) bool {
	count := c.group(rows, nil, 0, limit)
	if count < 0 {
		return false
	}
	c.mean(rows, demand, count)
	return true
}

// alike puts like rows together, whatever it takes.
//
// Rows are compared by what each PoP costs, with its price, above the least. What
// counts is the choice that a client really has: PoPs within a window of the least
// are told apart in eighths of it, the others not at all, and the window shrinks
// until the classes are few enough. The smallest window leaves which PoP is the
// cheapest and which are forbidden.
func (c *classifier) alike(rows [][]int32, demand, prices []int64, limit int) {
	for window := int64(widest); ; window /= 2 {
		if window < narrowest {
			// More sets of forbidden PoPs than classes: the limit must give way.
			window, limit = narrowest, len(rows)
		}
		if count := c.group(rows, prices, window, limit); count >= 0 {
			c.mean(rows, demand, count)
			return
		}
	}
}

// The windows of alike in µs.
const (
	widest    = 128_000
	narrowest = 8
)

// group gives rows that are alike within a window one class; a window of 0 asks
// for equality but for a constant, and needs no prices. It returns the number of
// classes, -1 if there are more than limit.
//
// Rows are told apart by 128 bits of hash. Should two be taken for one, once in the
// life of the universe, the plan is a little worse, and Plan.Gap says so.
func (c *classifier) group(rows [][]int32, prices []int64, window int64, limit int) (count int) {
	if c.known == nil {
		c.known, c.seeds = make(map[[2]uint64]int32), [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	}
	clear(c.known)
	c.class = resized(c.class, len(rows))
	for i, row := range rows {
		c.key = appendKey(c.key[:0], row, prices, window)
		sum := [2]uint64{maphash.Bytes(c.seeds[0], c.key), maphash.Bytes(c.seeds[1], c.key)}
		number, ok := c.known[sum]
		if !ok {
			if number = int32(len(c.known)); len(c.known) == limit {
				return -1
			}
			c.known[sum] = number
		}
		c.class[i] = number
	}
	return len(c.known)
}

// appendKey appends what a row has in common with those of its group.
func appendKey(key []byte, row []int32, prices []int64, window int64) []byte {
	price := func(j int) int64 {
		if prices == nil {
			return 0
		}
		return prices[j]
	}
	least := int64(unreachable)
	for j, c := range row {
		if c != Never {
			least = min(least, int64(c)+price(j))
		}
	}
	for j, c := range row {
		above := int64(c) + price(j) - least
		switch {
		case c == Never:
			key = append(key, 255)
		case window == 0:
			key = append(key, 0, byte(above), byte(above>>8), byte(above>>16), byte(above>>24))
		default:
			key = append(key, byte(min(8, above*8/window)))
		}
	}
	return key
}

// mean sets the costs of the classes.
func (c *classifier) mean(rows [][]int32, demand []int64, count int) {
	c.starts = resized(c.starts, count+1)
	clear(c.starts)
	for _, class := range c.class {
		c.starts[class+1]++
	}
	for i := range count {
		c.starts[i+1] += c.starts[i]
	}
	// Each start moves to the end of its class, which is where the next one begins.
	c.order = resized(c.order, len(rows))
	for i, class := range c.class {
		c.order[c.starts[class]] = int32(i)
		c.starts[class]++
	}
	c.costs, c.means = resized(c.costs, count), c.means[:0]
	from := int32(0)
	for class := range c.costs {
		members := c.order[from:c.starts[class]]
		from = c.starts[class]
		if len(members) == 1 {
			c.costs[class] = rows[members[0]]
		} else {
			c.costs[class] = c.meanOf(rows, demand, members)
		}
	}
}

// meanOf returns the mean of what rows cost above their least, weighted by demand.
func (c *classifier) meanOf(rows [][]int32, demand []int64, members []int32) []int32 {
	weight := 0.0
	for _, i := range members {
		weight += float64(demand[i])
	}
	c.sum = resized(c.sum, len(rows[members[0]]))
	clear(c.sum)
	for _, i := range members {
		row := rows[i]
		share := 1 / float64(len(members))
		if weight > 0 {
			share = float64(demand[i]) / weight
		}
		least := slices.Min(row)
		for j, cost := range row {
			if cost != Never {
				c.sum[j] += share * float64(cost-least)
			} else {
				c.sum[j] = math.Inf(1)
			}
		}
	}
	from := len(c.means)
	for _, x := range c.sum {
		cost := Never
		if !math.IsInf(x, 1) {
			cost = int32(math.Round(x))
		}
		c.means = append(c.means, cost)
	}
	return c.means[from:len(c.means):len(c.means)]
}
