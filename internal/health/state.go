package health

import "fmt"

// State is what is believed about a check or a subject. The zero value is
// [Unknown]. Unknown is not down: it means that there is not enough evidence,
// and it must not be acted on as if it were [Unhealthy].
type State int

// The states.
const (
	Unknown State = iota
	Healthy
	Unhealthy
)

var stateNames = [...]string{Unknown: "unknown", Healthy: "healthy", Unhealthy: "unhealthy"}

// States lists every state.
func States() []State { return []State{Unknown, Healthy, Unhealthy} }

// String returns "unknown", "healthy" or "unhealthy".
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", int(s))
	}
	return stateNames[s]
}

// MarshalText implements [encoding.TextMarshaler]. It fails for a value that is
// none of the states.
func (s State) MarshalText() ([]byte, error) {
	if s < 0 || int(s) >= len(stateNames) {
		return nil, fmt.Errorf("no health state %d", int(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if string(text) == name {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not a health state", text)
}

// Counter turns single results into a state: Rise passes in a row make it
// [Healthy], Fall failures in a row make it [Unhealthy], and it starts
// [Unknown]. A shorter streak changes nothing. Rise and Fall below 1 count as
// 1, so the zero value follows every result.
type Counter struct {
	Rise, Fall int

	state  State
	streak int  // results in a row that equal last
	last   bool // the latest result, valid while streak > 0
}

// Observe counts one result and returns the state after it, and whether the
// result changed the state.
func (c *Counter) Observe(ok bool) (state State, changed bool) {
	if c.streak == 0 || ok != c.last {
		c.streak, c.last = 0, ok
	}
	target, need := Unhealthy, c.Fall
	if ok {
		target, need = Healthy, c.Rise
	}
	need = max(need, 1)
	c.streak = min(c.streak+1, need)
	if c.streak < need || c.state == target {
		return c.state, false
	}
	c.state = target
	return c.state, true
}

// State returns the state after the latest result.
func (c *Counter) State() State { return c.state }

// Reset forgets every result: the state is [Unknown] again.
func (c *Counter) Reset() { *c = Counter{Rise: c.Rise, Fall: c.Fall} }
