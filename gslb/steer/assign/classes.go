package assign

import (
	"math"
	"slices"
)

// classRows puts like rows together. It returns the class of each row, and the
// costs of each class: those of its only row, or the mean of its rows weighted
// by their demand. exact says that only equal rows were put together.
//
// A constant that is added to a row changes no decision, so rows are compared by
// what each PoP costs, with its price, above the least. What counts is the
// choice that a client really has: PoPs within a window of the least are told
// apart in eighths of it, the others not at all, and the window shrinks until the
// classes are few enough. The smallest window leaves which PoP is the cheapest and
// which are forbidden.
func classRows(rows [][]int32, demand, prices []int64, limit int) (class []int32, costs [][]int32, exact bool) {
	if class, count := group(rows, prices, 0, limit); class != nil {
		return class, meanRows(rows, demand, class, count), true
	}
	for window := int64(widest); ; window /= 2 {
		if window < narrowest {
			// More sets of forbidden PoPs than classes: the limit must give way.
			window, limit = narrowest, len(rows)
		}
		if class, count := group(rows, prices, window, limit); class != nil {
			return class, meanRows(rows, demand, class, count), false
		}
	}
}

// The windows of classRows in µs.
const (
	widest    = 128_000
	narrowest = 8
)

// group gives rows that are alike within a window one number; a window of 0 asks
// for equality but for a constant. It returns nil if there are more than limit.
func group(rows [][]int32, prices []int64, window int64, limit int) (class []int32, count int) {
	class = make([]int32, len(rows))
	known := make(map[string]int32)
	var key []byte
	for i, row := range rows {
		key = key[:0]
		least := int64(unreachable)
		for j, c := range row {
			if c != Never {
				least = min(least, int64(c)+prices[j])
			}
		}
		for j, c := range row {
			above := int64(c) + prices[j] - least
			switch {
			case c == Never:
				key = append(key, 255)
			case window == 0:
				key = append(key, 0, byte(above), byte(above>>8), byte(above>>16), byte(above>>24))
			default:
				key = append(key, byte(min(8, above*8/window)))
			}
		}
		number, ok := known[string(key)]
		if !ok {
			if number = int32(len(known)); len(known) == limit {
				return nil, 0
			}
			known[string(key)] = number
		}
		class[i] = number
	}
	return class, len(known)
}

func meanRows(rows [][]int32, demand []int64, class []int32, count int) [][]int32 {
	members := make([]int32, count)
	weight := make([]float64, count)
	for i, c := range class {
		members[c]++
		weight[c] += float64(demand[i])
	}
	costs := make([][]int32, count)
	sums := make([][]float64, count)
	for i, c := range class {
		row := rows[i]
		if members[c] == 1 {
			costs[c] = row
			continue
		}
		if sums[c] == nil {
			sums[c] = make([]float64, len(row))
		}
		share := 1 / float64(members[c])
		if weight[c] > 0 {
			share = float64(demand[i]) / weight[c]
		}
		least := slices.Min(row)
		for j, cost := range row {
			if cost != Never {
				sums[c][j] += share * float64(cost-least)
			} else {
				sums[c][j] = math.Inf(1)
			}
		}
	}
	for c, sum := range sums {
		if sum == nil {
			continue
		}
		costs[c] = make([]int32, len(sum))
		for j, x := range sum {
			if costs[c][j] = Never; !math.IsInf(x, 1) {
				costs[c][j] = int32(math.Round(x))
			}
		}
	}
	return costs
}
