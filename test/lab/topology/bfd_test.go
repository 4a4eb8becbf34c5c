package topology

import (
	"strings"
	"testing"
	"time"

	"anyedge/configs"
)

// The switch reaches both sides of every session between node and router, and
// nothing of it is there without.
func TestBFDIsOnBothSidesOrNone(t *testing.T) {
	for _, on := range []bool{false, true} {
		top := Default()
		if on {
			top.BFD = BFD{Interval: 20 * time.Millisecond, Multiplier: 5}
		}
		p, err := New(top)
		if err != nil {
			t.Fatal(err)
		}
		files, err := p.Files()
		if err != nil {
			t.Fatal(err)
		}
		for file, want := range map[string]string{
			"fra-router/bfdd.conf": "transmit-interval 20\n  receive-interval 20\n  detect-multiplier 5",
			"fra-router/bgpd.conf": "neighbor 10.1.0.11 bfd profile nodes",
			"iad-router/bird.conf": "interval 20 ms; multiplier 5;",
		} {
			if got := strings.Contains(string(files[file]), want); got != on {
				t.Errorf("BFD %v: %s has %q: %v", on, file, want, got)
			}
		}
		if got := strings.Contains(string(files["core-eu/bgpd.conf"]), " bfd"); got {
			t.Error("a core speaks BFD")
		}
		for _, node := range p.Of(Node, "") {
			cfg, err := configs.ParsePop("pop.yaml", files[node.Name+"/pop.yaml"])
			if err != nil {
				t.Fatal(err)
			}
			bfd := cfg.BGP.Neighbors[0].BFD
			if (bfd != nil) != on || on && (bfd.Interval.Std() != 20*time.Millisecond || bfd.Multiplier != 5) {
				t.Errorf("%s: BFD %+v", node.Name, bfd)
			}
		}
	}
	for _, wrong := range []BFD{{time.Millisecond, 3}, {2 * time.Minute, 3}, {50 * time.Millisecond, 1}, {10500 * time.Microsecond, 3}} {
		top := Default()
		top.BFD = wrong
		if _, err := New(top); err == nil || !strings.Contains(err.Error(), "bfd: ") {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}
