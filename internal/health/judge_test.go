package health

import (
	"encoding/json"
	"testing"
	"time"
)

// epoch is where the tests' time starts.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// brief is a Config with which every result counts at once.
func brief() Config {
	return Config{
		Rise: 1, Fall: 1,
		Stale:    100 * time.Second,
		HoldDown: 4 * time.Second, HoldDownMax: 20 * time.Second, FlapMemory: 60 * time.Second,
	}
}

// step is one call and what the verdict is right after it.
type step struct {
	at     float64 // seconds
	check  string  // observed; none if empty
	ok     bool
	state  State
	since  float64 // seconds; -1 for the zero time
	hold   float64 // end of the hold-down in seconds; 0 for none
	reason string
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cfg    func(*Config)
		checks []string
		steps  []step
	}{
		{
			name: "nothing is known before the first results",
			cfg:  func(c *Config) { c.Rise = 2 }, checks: []string{"a", "b"},
			steps: []step{
				{0, "", false, Unknown, -1, 0, "a: no result yet; b: no result yet"},
				{1, "a", true, Unknown, -1, 0, "a: too few results in a row; b: no result yet"},
				{2, "a", true, Unknown, -1, 0, "b: no result yet"},
				{3, "b", true, Unknown, -1, 0, "b: too few results in a row"},
				{4, "b", true, Healthy, 4, 0, "every check passes"},
			},
		},
		{
			name:  "without checks nothing is ever known",
			steps: []step{{0, "", false, Unknown, -1, 0, "there is no check"}},
		},
		{
			name: "one unhealthy check decides, unknown ones or not", checks: []string{"a", "b"},
			steps: []step{
				{1, "a", false, Unhealthy, 1, 5, "a: broken"},
				{2, "b", false, Unhealthy, 1, 5, "a: broken; b: broken"},
				{3, "a", true, Unhealthy, 1, 5, "b: broken"},
			},
		},
		{
			name: "the hold-down outlasts a quick recovery", checks: []string{"a"},
			steps: []step{
				{1, "a", true, Healthy, 1, 0, "every check passes"},
				{2, "a", false, Unhealthy, 2, 6, "a: broken"},
				{3, "a", true, Unhealthy, 2, 6, "held down for 4s after: a: broken"},
				{5.999, "", false, Unhealthy, 2, 6, "held down for 4s after: a: broken"},
				{6, "", false, Healthy, 6, 0, "every check passes"},
			},
		},
		{
			name: "an outage longer than the hold-down ends with its cause", checks: []string{"a"},
			steps: []step{
				{1, "a", false, Unhealthy, 1, 5, "a: broken"},
				{9, "", false, Unhealthy, 1, 0, "a: broken"},
				{10, "a", true, Healthy, 10, 0, "every check passes"},
			},
		},
		{
			name: "flaps double the hold-down up to its bound", checks: []string{"a"},
			steps: []step{
				{0, "a", true, Healthy, 0, 0, "every check passes"},
				{1, "a", false, Unhealthy, 1, 5, "a: broken"},
				{2, "a", true, Unhealthy, 1, 5, "held down for 4s after: a: broken"},
				{10, "a", false, Unhealthy, 10, 18, "a: broken"},
				{11, "a", true, Unhealthy, 10, 18, "held down for 8s after: a: broken"},
				// A flap during the hold-down counts too and starts it anew.
				{12, "a", false, Unhealthy, 10, 28, "a: broken"},
				{13, "a", true, Unhealthy, 10, 28, "held down for 16s after: a: broken"},
				{14, "a", false, Unhealthy, 10, 34, "a: broken"},
				{15, "a", true, Unhealthy, 10, 34, "held down for 20s after: a: broken"},
				{34, "", false, Healthy, 34, 0, "every check passes"},
			},
		},
		{
			name: "quiet times forget flaps one by one", checks: []string{"a"},
			cfg: func(c *Config) { c.Stale = -1 },
			steps: []step{
				{0, "a", true, Healthy, 0, 0, "every check passes"},
				{1, "a", false, Unhealthy, 1, 5, "a: broken"},
				{2, "a", true, Unhealthy, 1, 5, "held down for 4s after: a: broken"},
				{10, "a", false, Unhealthy, 10, 18, "a: broken"},
				{11, "a", true, Unhealthy, 10, 18, "held down for 8s after: a: broken"},
				// One of two flaps is forgotten after 60 s: this is the second again.
				{70, "a", false, Unhealthy, 70, 78, "a: broken"},
				{71, "a", true, Unhealthy, 70, 78, "held down for 8s after: a: broken"},
				// Both are forgotten after 120 s: this is the first.
				{190, "a", false, Unhealthy, 190, 194, "a: broken"},
			},
		},
		{
			name: "silence makes unknown, not unhealthy", checks: []string{"a"},
			cfg: func(c *Config) { c.Stale = 10 * time.Second; c.Rise = 2 },
			steps: []step{
				{0, "a", true, Unknown, -1, 0, "a: too few results in a row"},
				{1, "a", true, Healthy, 1, 0, "every check passes"},
				{10.999, "", false, Healthy, 1, 0, "every check passes"},
				{30, "", false, Unknown, 11, 0, "a: no result for 10s"},
				// It has to rise anew.
				{31, "a", true, Unknown, 11, 0, "a: too few results in a row"},
				{32, "a", true, Healthy, 32, 0, "every check passes"},
			},
		},
		{
			name: "an outage that goes silent is no flap when it is heard again", checks: []string{"a"},
			cfg: func(c *Config) { c.Stale = 10 * time.Second },
			steps: []step{
				{0, "a", false, Unhealthy, 0, 4, "a: broken"},
				{10, "", false, Unknown, 10, 0, "a: no result for 10s"},
				{20, "a", false, Unhealthy, 20, 0, "a: broken"},
				{21, "a", true, Healthy, 21, 0, "every check passes"},
				{22, "a", false, Unhealthy, 22, 30, "a: broken"},
			},
		},
		{
			name: "a hold-down covers silence", checks: []string{"a"},
			cfg: func(c *Config) { c.Stale = 2 * time.Second },
			steps: []step{
				{0, "a", false, Unhealthy, 0, 4, "a: broken"},
				{3, "", false, Unhealthy, 0, 4, "held down for 4s after: a: broken"},
				{4, "", false, Unknown, 4, 0, "a: no result for 2s"},
			},
		},
		{
			name: "no hold-down", checks: []string{"a"},
			cfg: func(c *Config) { c.HoldDown = -1 },
			steps: []step{
				{0, "a", false, Unhealthy, 0, 0, "a: broken"},
				{1, "a", true, Healthy, 1, 0, "every check passes"},
			},
		},
		{
			name: "time does not run backwards", checks: []string{"a"},
			steps: []step{
				{10, "a", true, Healthy, 10, 0, "every check passes"},
				{5, "a", false, Unhealthy, 10, 14, "a: broken"},
				{6, "a", true, Unhealthy, 10, 14, "held down for 4s after: a: broken"},
				{14, "", false, Healthy, 14, 0, "every check passes"},
			},
		},
		{
			name: "checks outside the set do not count", checks: []string{"a", "a"},
			steps: []step{
				{0, "a", true, Healthy, 0, 0, "every check passes"},
				{1, "b", false, Healthy, 0, 0, "every check passes"},
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := brief()
			if tt.cfg != nil {
				tt.cfg(&cfg)
			}
			j := NewJudge(cfg, tt.checks...)
			for i, s := range tt.steps {
				if s.check != "" {
					detail := ""
					if !s.ok {
						detail = "broken"
					}
					j.Observe(at(s.at), s.check, s.ok, detail)
				}
				v := j.Verdict(at(s.at))
				if v.State != s.state || v.Reason != s.reason {
					t.Errorf("step %d: %v (%s), want %v (%s)", i, v.State, v.Reason, s.state, s.reason)
				}
				since, hold := time.Time{}, time.Time{}
				if s.since >= 0 {
					since = at(s.since)
				}
				if s.hold > 0 {
					hold = at(s.hold)
				}
				if !v.Since.Equal(since) || !v.HoldUntil.Equal(hold) {
					t.Errorf("step %d: since %v, held until %v; want %v, %v", i, v.Since, v.HoldUntil, since, hold)
				}
			}
		})
	}
}

func TestSetChecks(t *testing.T) {
	j := NewJudge(brief(), "a")
	j.Observe(at(1), "a", true, "")
	if v := j.Verdict(at(1)); v.State != Healthy {
		t.Fatalf("before: %v", v.State)
	}
	j.SetChecks(at(2), "a", "b")
	if v := j.Verdict(at(2)); v.State != Unknown || !v.Since.Equal(at(2)) || len(v.Checks) != 2 {
		t.Errorf("with a new check: %+v", v)
	}
	j.Observe(at(3), "b", false, "broken")
	j.SetChecks(at(4), "a")
	// The bad check is gone, what it did is not.
	if v := j.Verdict(at(4)); v.State != Unhealthy || v.Reason != "held down for 4s after: b: broken" {
		t.Errorf("with the bad check removed: %v (%s)", v.State, v.Reason)
	}
	if v := j.Verdict(at(7)); v.State != Healthy || v.Checks[0].Since != at(1) {
		t.Errorf("after the hold-down: %+v", v)
	}
	j.SetChecks(at(8), "a", "b")
	if v := j.Verdict(at(8)); v.Checks[1].State != Unknown || v.Checks[1].Detail != "" {
		t.Errorf("a check that comes back remembers: %+v", v.Checks[1])
	}
}

func TestDefaults(t *testing.T) {
	j := NewJudge(Config{}, "a")
	state := func(seconds float64) State { return j.Verdict(at(seconds)).State }
	for i := range 3 {
		if state(0) != Unknown {
			t.Errorf("healthy after %d passes, want 3", i)
		}
		j.Observe(at(0), "a", true, "")
	}
	if state(9.9) != Healthy || state(10) != Unknown {
		t.Error("want stale after 10s")
	}
	for range 3 {
		j.Observe(at(11), "a", true, "")
	}
	j.Observe(at(11), "a", false, "")
	if state(11) != Healthy {
		t.Error("unhealthy after one failure, want 2")
	}
	j.Observe(at(11), "a", false, "")
	if v := j.Verdict(at(11)); v.State != Unhealthy || !v.HoldUntil.Equal(at(16)) || v.Reason != "a: failed" {
		t.Errorf("want held down for 5s: %+v", v)
	}
}

// A bound that is far beyond any time must not overflow on the way there.
func TestHoldDownDoesNotOverflow(t *testing.T) {
	cfg := brief()
	cfg.HoldDownMax, cfg.FlapMemory, cfg.Stale = 1<<63-1, -1, -1
	j := NewJudge(cfg, "a")
	for range 100 {
		j.Observe(at(1), "a", false, "")
		j.Observe(at(1), "a", true, "")
	}
	v := j.Verdict(at(1e6))
	if v.State != Unhealthy || v.HoldUntil.Sub(at(1)) != cfg.HoldDownMax {
		t.Errorf("after 100 flaps: %v until %v", v.State, v.HoldUntil)
	}
}

func TestVerdictJSON(t *testing.T) {
	j := NewJudge(brief(), "a", "b")
	j.Observe(at(1), "a", false, "refused")
	got, err := json.Marshal(j.Verdict(at(1)))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"state":"unhealthy","since":"2026-01-01T00:00:01Z","reason":"a: refused",` +
		`"hold_until":"2026-01-01T00:00:05Z","next":"2026-01-01T00:00:05Z","checks":[` +
		`{"name":"a","state":"unhealthy","since":"2026-01-01T00:00:01Z","observed":"2026-01-01T00:00:01Z","detail":"refused"},` +
		`{"name":"b","state":"unknown"}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
