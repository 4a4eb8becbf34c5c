package health

import (
	"encoding/json"
	"testing"
)

func TestCounter(t *testing.T) {
	// Results are '+' and '-'; states after each are 'u', 'h' and 'd' (down).
	for _, tt := range []struct {
		name       string
		rise, fall int
		results    string
		want       string
	}{
		{"rises after a full streak", 3, 2, "+++", "uuh"},
		{"falls after a full streak", 3, 2, "--", "ud"},
		{"a broken streak starts again", 3, 2, "++-+++", "uuuuuh"},
		{"a single failure is forgiven", 2, 2, "++-+-+", "uhhhhh"},
		{"falls and rises", 2, 2, "++--++", "uhhddh"},
		{"a longer streak changes nothing", 2, 2, "+++++--", "uhhhhhd"},
		{"zero follows every result", 0, 0, "+-+-", "hdhd"},
		{"below zero counts as one", -5, -5, "+-", "hd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Counter{Rise: tt.rise, Fall: tt.fall}
			names := map[byte]State{'u': Unknown, 'h': Healthy, 'd': Unhealthy}
			before := Unknown
			for i := range len(tt.results) {
				got, changed := c.Observe(tt.results[i] == '+')
				if want := names[tt.want[i]]; got != want || c.State() != want {
					t.Errorf("result %d: state %v (State %v), want %v", i, got, c.State(), want)
				}
				if changed != (got != before) {
					t.Errorf("result %d: changed = %v from %v to %v", i, changed, before, got)
				}
				before = got
			}
			c.Reset()
			if c != (Counter{Rise: tt.rise, Fall: tt.fall}) {
				t.Errorf("after Reset: %+v", c)
			}
		})
	}
}

func TestStateText(t *testing.T) {
	for _, s := range States() {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back State
		if err := json.Unmarshal(data, &back); err != nil || back != s {
			t.Errorf("%v became %s became %v, %v", s, data, back, err)
		}
	}
	if _, err := State(3).MarshalText(); err == nil {
		t.Error("a value that is no state was marshaled")
	}
	if got := State(-1).String(); got != "state(-1)" {
		t.Errorf("String of no state = %q", got)
	}
	s := Healthy
	if err := s.UnmarshalText([]byte("Healthy")); err == nil || s != Healthy {
		t.Errorf("a misspelled state: %v, error %v", s, err)
	}
}
