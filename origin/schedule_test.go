package origin

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestInterleaveSpreads(t *testing.T) {
	for _, tt := range []struct {
		weights []int
		want    []int32
	}{
		{nil, []int32{}},
		{[]int{1}, []int32{0}},
		{[]int{1, 1, 1}, []int32{0, 1, 2}},
		{[]int{2, 1}, []int32{0, 1, 0}},
		{[]int{5, 1, 1}, []int32{0, 0, 0, 1, 2, 0, 0}},
	} {
		got := interleave(tt.weights)
		if !slices.Equal(got, tt.want) {
			t.Errorf("interleave(%v) = %v, want %v", tt.weights, got, tt.want)
		}
	}
}

// In a cycle every index has exactly its weight in turns, and at no moment is
// one further from its share than rounding explains: after the virtual time t
// each index i has floor(w_i·t+1/2) turns.
func TestInterleaveIsExactAndEven(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := 1 + r.IntN(8)
		weights := make([]int, n)
		sum := 0
		for i := range weights {
			weights[i] = 1 + r.IntN(40)
			sum += weights[i]
		}
		counts := make([]int, n)
		for turn, i := range interleave(weights) {
			counts[i]++
			for k, c := range counts {
				share := float64(weights[k]) / float64(sum)
				off := math.Abs(float64(c) - share*float64(turn+1))
				if bound := 0.5 + share*float64(n)/2 + 1e-9; off > bound {
					t.Fatalf("weights %v: after turn %d index %d has %d turns, %.2f off its share, bound %.2f", weights, turn, k, c, off, bound)
				}
			}
		}
		if !slices.Equal(counts, weights) {
			t.Fatalf("weights %v: turns %v", weights, counts)
		}
	}
}

func TestReduce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []int
		limit   int
		want    []int
	}{
		{"none", nil, 10, []int{}},
		{"one", []int{1000}, 10, []int{1}},
		{"common divisor", []int{100, 300, 200}, 10, []int{1, 3, 2}},
		{"coprime within the limit", []int{7, 3}, 10, []int{7, 3}},
		{"scaled", []int{997, 499, 1}, 100, []int{67, 33, 1}},
		{"more backends than slots", []int{3, 2, 2, 2}, 2, []int{1, 1, 1, 1}},
	} {
		if got := reduce(tt.weights, tt.limit); !slices.Equal(got, tt.want) {
			t.Errorf("%s: reduce(%v, %d) = %v, want %v", tt.name, tt.weights, tt.limit, got, tt.want)
		}
	}
}

// The largest sets stay within the bound and near their shares.
func TestScheduleBound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	weights := make([]int, 500)
	sum := 0
	for i := range weights {
		weights[i] = 1 + r.IntN(MaxWeight)
		sum += weights[i]
	}
	slots := interleave(reduce(weights, maxSlots))
	if len(slots) > maxSlots+len(weights) {
		t.Fatalf("%d slots", len(slots))
	}
	counts := make([]int, len(weights))
	for _, i := range slots {
		counts[i]++
	}
	for i, c := range counts {
		want := float64(weights[i]) * maxSlots / float64(sum)
		if c < 1 || math.Abs(float64(c)-want) > 1 {
			t.Errorf("weight %d has %d slots, want about %.1f", weights[i], c, want)
		}
	}
}
