package planner

import (
	"math"
	"testing"
)

func TestHeaviness(t *testing.T) {
	for name, c := range map[string]struct {
		weights, works, want []float64
	}{
		"nothing is measured":            {[]float64{0, 0}, []float64{0, 0}, []float64{1, 1}},
		"all alike":                      {[]float64{1e6, 1e5, 7}, []float64{2e7, 2e6, 140}, []float64{1, 1, 1}},
		"one that measures nothing":      {[]float64{1e6, 0}, []float64{2e7, 0}, []float64{1, 1}},
		"half of them three times heavy": {[]float64{1e6, 1e6}, []float64{1e7, 3e7}, []float64{0.5, 1.5}},
		"little is known of a new PoP":   {[]float64{1e9, 1}, []float64{1e10, 1000}, []float64{1, 1.98}},
		"out of all bounds":              {[]float64{1e9, 1e4}, []float64{1e10, 1e9}, []float64{0.92, 10}},
	} {
		for i, got := range heaviness(c.weights, c.works) {
			if math.Abs(got-c.want[i]) > 0.02*c.want[i] {
				t.Errorf("%s: PoP %d has %v, want %v", name, i, got, c.want[i])
			}
		}
	}
}
