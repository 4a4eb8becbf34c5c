package dnssec

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Whatever a store or a file has: a ring that is taken can be used and advanced at
// any time, comes back the same from its JSON form, and shows no secret.
func FuzzParseRing(f *testing.F) {
	for _, p := range []Policy{slow, split(slow), split(with(slow, Ed25519))} {
		ring, _, err := Ring{}.Advance(at(0), "edge.example", p, nil, source(1))
		for _, after := range []time.Duration{0, 300 * hour} {
			if err == nil {
				ring, _, err = ring.Advance(at(after), "edge.example", split(slow), nil, source(2))
			}
		}
		data, e := json.Marshal(ring)
		if err != nil || e != nil {
			f.Fatal(err, e)
		}
		f.Add(data, int64(400*hour))
	}
	f.Fuzz(func(t *testing.T, data []byte, after int64) {
		ring, err := ParseRing("edge.example", data)
		if err != nil {
			return
		}
		now := at(time.Duration(after))
		set, err := ring.At(now)
		if err != nil {
			t.Fatal(err)
		}
		if set != nil && len(set.Published) > len(ring.Keys) {
			t.Errorf("%d of %d keys are published", len(set.Published), len(ring.Keys))
		}
		text := fmt.Sprintf("%v %+v", ring, ring.Status(now))
		for i := range ring.Keys {
			secret, _ := ring.Keys[i].Secret.MarshalText()
			if strings.Contains(text, string(secret)) {
				t.Error("a secret is shown")
			}
		}
		next, _, err := ring.Advance(now, "edge.example", slow, [][]DS{{}}, source(3))
		if err != nil {
			return
		}
		again, err := json.Marshal(next)
		if err != nil {
			t.Skip(err) // a year that JSON has not
		}
		if back, err := ParseRing("edge.example", again); err != nil || back.Generation != next.Generation {
			t.Errorf("the ring that came of %s cannot be read: %v", data, err)
		}
	})
}
