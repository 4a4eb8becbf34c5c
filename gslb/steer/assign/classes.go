package assign

import (
	"math"
	"slices"
)

// classRows puts like rows together. It returns the class of each row, and the
// costs of each class: those of its only row, or the mean of its rows weighted
// by their demand.
//
// A constant that is added to a row changes no decision, so rows are compared
// by what each PoP costs above the row's least. Near PoPs are told apart finely
// and far ones coarsely, because a class is seldom sent far; the steps grow
// until the classes are few enough. The last step keeps nothing but which PoP is
// cheapest and which are forbidden.
func classRows(rows [][]int32, demand []int64, limit int) (class []int32, costs [][]int32) {
	const coarsest = 1 << 21 // µs; no client is sent where it costs two seconds more
	for step := int32(0); ; step = max(250, 2*step) {
		if step > coarsest {
			step = MaxCost
		}
		class, count := group(rows, step, limit)
		if class != nil {
			return class, meanRows(rows, demand, class, count)
		}
		if step == MaxCost {
			// More sets of forbidden PoPs than classes: the limit must give way.
			limit = len(rows)
		}
	}
}

// group gives rows that are alike in steps of the given size one number. It
// returns nil if there are more than limit.
func group(rows [][]int32, step int32, limit int) (class []int32, count int) {
	class = make([]int32, len(rows))
	known := make(map[string]int32)
	var key []byte
	for i, row := range rows {
		key = key[:0]
		least := slices.Min(row)
		for _, c := range row {
			v := uint32(math.MaxUint32)
			switch {
			case c == Never:
			case step == 0:
				v = uint32(c - least)
			case c > least || step < MaxCost:
				v = 1 + bucket(c-least, step)
			default:
				v = 0
			}
			key = append(key, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
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

// bucket numbers intervals of costs above the least one: the first is a step
// wide, each further one half as wide as what is below it, at least a step.
func bucket(above, step int32) uint32 {
	if step >= MaxCost {
		return 0
	}
	x := float64(above) / float64(step)
	if x < 2 {
		return uint32(x)
	}
	return 2 + uint32(math.Log(x/2)/math.Log(1.5))
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
