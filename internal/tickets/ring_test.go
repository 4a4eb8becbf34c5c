package tickets

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hourly = Schedule{Rotate: time.Hour, Keep: 2, Propagation: 30 * time.Second}
)

// source is randomness that a test can repeat.
func source(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
}

func newRing(t *testing.T, s Schedule) Ring {
	t.Helper()
	r, err := New(start, s, source(1))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// activations returns when the keys activate, as spans from start.
func activations(r Ring) []time.Duration {
	var all []time.Duration
	for _, k := range r.Keys {
		all = append(all, k.ActivatesAt.Sub(start))
	}
	return all
}

func TestAdvance(t *testing.T) {
	const h, m = time.Hour, time.Minute
	for _, tt := range []struct {
		name    string
		ring    []time.Duration // activations
		at      time.Duration
		want    []time.Duration // nil: no change
		due     time.Duration   // asked before advancing
		current time.Duration   // after advancing
	}{
		{"nothing to do before the next key is current", []time.Duration{0, h}, 59 * m, nil, h, 0},
		{"a next key as soon as there is none", []time.Duration{0, h}, h, []time.Duration{0, h, 2 * h}, h, h},
		{"late, but on pace", []time.Duration{0, h}, h + 20*m, []time.Duration{0, h, 2 * h}, h + 20*m, h},
		{"so late that propagation sets the pace", []time.Duration{0, h}, 2*h - 30*time.Second, []time.Duration{0, h, 2*h + 30*time.Second}, 2*h - 30*time.Second, h},
		{"keeps two past keys", []time.Duration{0, h, 2 * h}, 2*h + m, []time.Duration{0, h, 2 * h, 3 * h}, 2*h + m, 2 * h},
		{"erases the third past key", []time.Duration{0, h, 2 * h, 3 * h}, 3 * h, []time.Duration{h, 2 * h, 3 * h, 4 * h}, 3 * h, 3 * h},
		{"after a long outage the last key goes on until the new one is everywhere", []time.Duration{0, h, 2 * h, 3 * h}, 100 * h, []time.Duration{3 * h, 100*h + m}, 100 * h, 3 * h},
		{"after a short outage what is kept is still kept", []time.Duration{0, h, 2 * h, 3 * h}, 4*h + 30*m, []time.Duration{2 * h, 3 * h, 4*h + 31*m}, 4*h + 30*m, 3 * h},
		{"a clock set back does nothing while the next key is in reach", []time.Duration{0, h, 2 * h}, -h, nil, 2 * h, 0},
		{"keys that all lie far ahead start now", []time.Duration{10 * h, 11 * h}, 0, []time.Duration{0, h, 11 * h}, 0, 0},
		{"a key from a clock far ahead does not stop the rotation", []time.Duration{0, h, 50 * h}, h, []time.Duration{0, h, 2 * h, 50 * h}, h, h},
		{"and is used when its time comes", []time.Duration{48 * h, 49 * h, 50 * h}, 50 * h, []time.Duration{48 * h, 49 * h, 50 * h, 51 * h}, 50 * h, 50 * h},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Ring{Version: version}
			rnd := source(2)
			for _, a := range tt.ring {
				k, err := generate(rnd, start.Add(a))
				if err != nil {
					t.Fatal(err)
				}
				r.Keys = append(r.Keys, k)
			}
			before := slices.Clone(r.Keys)
			now := start.Add(tt.at)
			if due := r.Due(now, hourly); !due.Equal(start.Add(tt.due)) {
				t.Errorf("due at %v, want %v", due.Sub(start), tt.due)
			}
			next, changed, err := r.Advance(now, hourly, rnd)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want == nil {
				want = tt.ring
			}
			if changed != (tt.want != nil) || !slices.Equal(activations(next), want) {
				t.Errorf("changed %v to %v, want %v", changed, activations(next), want)
			}
			if !reflect.DeepEqual(r.Keys, before) {
				t.Error("the ring it was asked of changed")
			}
			if cur, ok := next.Encrypting(now); !ok || cur.ActivatesAt.Sub(start) != max(tt.current, want[0]) {
				t.Errorf("%v encrypts, want %v", cur.ActivatesAt.Sub(start), tt.current)
			}
			// Once is enough.
			if _, again, err := next.Advance(now, hourly, rnd); again || err != nil {
				t.Errorf("advancing at once again: changed %v, error %v", again, err)
			}
			if !next.Due(now, hourly).After(now) {
				t.Error("due again at once")
			}
		})
	}
}

// Slower and faster schedules take effect at the next chance.
func TestScheduleChange(t *testing.T) {
	slow := Schedule{Rotate: 12 * time.Hour, Keep: 2, Propagation: 30 * time.Second}
	r := newRing(t, slow)
	now := start.Add(5 * time.Hour)
	next, changed, err := r.Advance(now, hourly, source(3))
	if err != nil || !changed {
		t.Fatalf("changed %v, error %v", changed, err)
	}
	if got, want := activations(next), []time.Duration{0, 5*time.Hour + time.Minute, 12 * time.Hour}; !slices.Equal(got, want) {
		t.Errorf("faster: %v, want %v", got, want)
	}
	r = newRing(t, hourly)
	if got := r.Due(start, slow); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("slower: due %v, want when the next key is current", got)
	}
}

func TestOrderAndRoles(t *testing.T) {
	r := newRing(t, hourly)
	now := start
	for range 3 {
		now = r.Due(now, hourly)
		var err error
		if r, _, err = r.Advance(now, hourly, source(uint64(now.Unix()))); err != nil {
			t.Fatal(err)
		}
	}
	// Keys 1, 2, 3 and 4 are left; 3 is current.
	var order []time.Duration
	for _, k := range r.Decrypting(now) {
		order = append(order, k.ActivatesAt.Sub(start)/time.Hour)
	}
	if want := []time.Duration{3, 4, 2, 1}; !slices.Equal(order, want) {
		t.Errorf("decrypting with %v, want %v", order, want)
	}
	var roles []string
	for _, s := range r.Status(now) {
		roles = append(roles, fmt.Sprintf("%s %d", s.Role, s.ActivatesAt.Sub(start)/time.Hour))
	}
	if got, want := strings.Join(roles, ", "), "previous 1, previous 2, current 3, next 4"; got != want {
		t.Errorf("roles %s, want %s", got, want)
	}
	keys := r.Decrypting(now)
	keys[0].Secret = Secret{}
	if err := r.Validate(); err != nil {
		t.Errorf("the keys handed out are the ring's own: %v", err)
	}

	var none Ring
	if _, ok := none.Encrypting(now); ok || none.Decrypting(now) != nil || len(none.Status(now)) != 0 {
		t.Error("a ring without keys has keys")
	}
	if !none.Due(now, hourly).Equal(now) {
		t.Error("a ring without keys is not due")
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*Ring)
		want  string // empty: valid
	}{
		{"a new ring", func(*Ring) {}, ""},
		{"the zero ring", func(r *Ring) { *r = Ring{} }, "version 0, want 1\nticket ring without keys"},
		{"a later format", func(r *Ring) { r.Version = 2 }, "version 2, want 1"},
		{"no id", func(r *Ring) { r.Keys[1].ID = ID{} }, "keys[1]: no id"},
		{"no secret", func(r *Ring) { r.Keys[0].Secret = Secret{} }, "keys[0]: no secret"},
		{"no activation", func(r *Ring) { r.Keys[0].ActivatesAt = time.Time{} }, "keys[0]: no activation"},
		{"an id twice", func(r *Ring) { r.Keys[1].ID = r.Keys[0].ID }, "keys[1]: id"},
		{"out of order", func(r *Ring) { slices.Reverse(r.Keys) }, "keys[1]: activates no later"},
		{"two at one time", func(r *Ring) { r.Keys[1].ActivatesAt = r.Keys[0].ActivatesAt }, "keys[1]: activates no later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRing(t, hourly)
			tt.spoil(&r)
			err := r.Validate()
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			next, changed, err := r.Advance(start.Add(time.Hour), hourly, source(4))
			if err == nil || changed || !reflect.DeepEqual(next, r) {
				t.Errorf("it was advanced: changed %v, error %v", changed, err)
			}
		})
	}
}

func TestValidateSchedule(t *testing.T) {
	for _, tt := range []struct {
		s    Schedule
		want string
	}{
		{Schedule{}, ""},
		{hourly, ""},
		{Schedule{Rotate: 2 * time.Minute}, ""},
		{Schedule{Rotate: 119 * time.Second}, "rotate 1m59s"},
		{Schedule{Rotate: -time.Hour}, "rotate -1h0m0s"},
		{Schedule{Propagation: -1}, "propagation -1ns"},
		{Schedule{Keep: -1}, "keep -1"},
		{Schedule{Keep: 17}, "keep 17"},
	} {
		err := tt.s.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.s, err, tt.want)
		}
		if _, newErr := New(start, tt.s, source(5)); (newErr == nil) != (err == nil) {
			t.Errorf("%+v: New says %v", tt.s, newErr)
		}
	}
}

// Whatever ring a node adopts, at whatever time: it can encrypt, and advancing
// yields a ring that it could adopt too, which is not due again at once.
func FuzzRing(f *testing.F) {
	for seed, at := range map[uint64]time.Duration{1: 0, 2: time.Hour, 3: 100 * time.Hour, 4: -10 * time.Hour} {
		r, err := New(start, hourly, source(seed))
		if err != nil {
			f.Fatal(err)
		}
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, start.Add(at).Unix())
	}
	f.Fuzz(func(t *testing.T, data []byte, unix int64) {
		var r Ring
		if json.Unmarshal(data, &r) != nil || r.Validate() != nil {
			return
		}
		now := start.Add(time.Duration(unix % 1e9 * 1e9))
		key, ok := r.Encrypting(now)
		keys := r.Decrypting(now)
		if !ok || len(keys) != len(r.Keys) || keys[0] != key {
			t.Fatalf("encrypts with %v of %v, decrypts with %v", key, r, keys)
		}
		due := r.Due(now, hourly)
		next, changed, err := r.Advance(now, hourly, source(5))
		if err != nil || changed != due.Equal(now) {
			t.Fatalf("%v, due %v, at %v: changed %v, error %v", r, due, now, changed, err)
		}
		if err := next.Validate(); err != nil {
			t.Fatalf("%v became %v: %v", r, next, err)
		}
		if next.Version != version || !next.Due(now, hourly).After(now) {
			t.Fatalf("%v became %v, due again at once", r, next)
		}
	})
}
