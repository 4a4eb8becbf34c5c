package pop

import (
	"testing"
	"time"

	"anyedge/configs"
)

func TestDrainGoesInOrder(t *testing.T) {
	pace := configs.Drain{
		Deprefer: configs.Duration(10 * time.Second),
		Withdraw: configs.Duration(5 * time.Second),
		Close:    configs.Duration(30 * time.Second),
	}
	t0 := time.Unix(1000, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	type moment struct {
		at    int
		facts drainFacts
		want  DrainStage
	}
	busy := func(withdrawn int) drainFacts {
		f := drainFacts{requested: true, connections: 7}
		if withdrawn > 0 {
			f.withdrawn = at(withdrawn)
		}
		return f
	}
	for _, tc := range []struct {
		name    string
		moments []moment
	}{
		{"never asked", []moment{{0, drainFacts{}, DrainNone}, {100, drainFacts{}, DrainNone}}},
		{"whole, clients stay", []moment{
			{0, busy(0), DrainDeprefer},
			{9, busy(0), DrainDeprefer},
			{10, busy(0), DrainWithdraw},
			{11, busy(11), DrainWithdraw},
			{15, busy(11), DrainWithdraw},
			{16, busy(11), DrainClose},
			{45, busy(11), DrainClose},
			{46, busy(11), DrainCompleted},
			{99, busy(11), DrainCompleted},
		}},
		{"clients gone early", []moment{
			{0, busy(0), DrainDeprefer},
			{10, busy(0), DrainWithdraw},
			{11, drainFacts{requested: true, withdrawn: at(11)}, DrainWithdraw},
			{16, drainFacts{requested: true, withdrawn: at(11)}, DrainClose},
			{17, drainFacts{requested: true, withdrawn: at(11)}, DrainCompleted},
		}},
		{"guard refuses", []moment{
			{0, busy(0), DrainDeprefer},
			{10, busy(0), DrainWithdraw},
			{1000, busy(0), DrainWithdraw}, // clients are never asked to go while the route is up
			{1001, drainFacts{}, DrainNone},
		}},
		{"taken back and asked again", []moment{
			{0, busy(0), DrainDeprefer},
			{5, drainFacts{}, DrainNone},
			{6, busy(0), DrainDeprefer},
			{15, busy(0), DrainDeprefer},
			{16, busy(0), DrainWithdraw},
		}},
		{"already withdrawn", []moment{
			{100, busy(1), DrainDeprefer},
			{110, busy(1), DrainClose},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var d drain
			for _, m := range tc.moments {
				d.step(at(m.at), pace, m.facts)
				if d.stage != m.want {
					t.Fatalf("at %ds: stage %s, want %s", m.at, d.stage, m.want)
				}
			}
		})
	}
}
