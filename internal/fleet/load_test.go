package fleet_test

import (
	"math"
	"testing"

	"anyedge/internal/fleet"
)

func TestLoad(t *testing.T) {
	const conns, cpu, memory = fleet.ResourceConnections, fleet.ResourceCPU, "memory"
	for name, tc := range map[string]struct {
		usage         []fleet.Usage
		used, ceiling float64
	}{
		"nothing known":             {nil, 0, 0},
		"connections only":          {[]fleet.Usage{{conns, 100, 1000}}, 100, 1000},
		"connections not known":     {[]fleet.Usage{{cpu, 1, 2}}, 0, 0},
		"idle":                      {[]fleet.Usage{{conns, 0, 1000}, {cpu, 1.8, 2}}, 0, 1000},
		"processors hardly used":    {[]fleet.Usage{{conns, 100, 10000}, {cpu, 0.3, 2}}, 100, 10000},
		"processors half used":      {[]fleet.Usage{{cpu, 1, 2}, {conns, 100, 10000}}, 100, 200},
		"processors over the top":   {[]fleet.Usage{{conns, 100, 10000}, {cpu, 2.5, 2}}, 100, 80},
		"memory that is always so":  {[]fleet.Usage{{conns, 10, 1000}, {memory, 60, 100}}, 10, 1000},
		"memory nearly full":        {[]fleet.Usage{{conns, 100, 1000}, {memory, 80, 100}}, 100, 125},
		"connections are the least": {[]fleet.Usage{{conns, 900, 1000}, {cpu, 1, 2}}, 900, 1000},
		"a ceiling not known":       {[]fleet.Usage{{conns, 100, 1000}, {cpu, 1, 0}}, 100, 1000},
	} {
		r := fleet.Report{Usage: tc.usage}
		if used, ceiling := r.Load(); used != tc.used || math.Abs(ceiling-tc.ceiling) > 1e-9 {
			t.Errorf("%s: %v of %v, want %v of %v", name, used, ceiling, tc.used, tc.ceiling)
		}
	}
}
