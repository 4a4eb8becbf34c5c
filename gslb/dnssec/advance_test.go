package dnssec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// slow is a policy whose every duration differs.
var slow = Policy{
	Algorithm: ECDSAP256SHA256, Propagation: 10 * time.Minute,
	KeyTTL: time.Hour, MaxTTL: 5 * time.Hour, ParentTTL: 24 * time.Hour, ParentPropagation: 2 * time.Hour,
	ZoneLifetime: 240 * time.Hour, EntryLifetime: 960 * time.Hour,
}

func split(p Policy) Policy { p.Split = true; return p }
func with(p Policy, algorithm uint8) Policy {
	p.Algorithm = algorithm
	return p
}

// zone is a ring as it goes from step to step.
type zone struct {
	t    *testing.T
	p    Policy
	ring Ring
	seed uint64
}

func newZone(t *testing.T, p Policy) *zone {
	z := &zone{t: t, p: p}
	z.advance(0, nil)
	return z
}

func at(after time.Duration) time.Time { return start.Add(after) }

func (z *zone) advance(after time.Duration, parent [][]DS) {
	z.t.Helper()
	z.seed++
	next, changed, err := z.ring.Advance(at(after), "edge.example", z.p, parent, source(z.seed))
	if err != nil {
		z.t.Fatal(err)
	}
	if changed != (next.Generation == z.ring.Generation+1) {
		z.t.Fatalf("changed is %v, generation %d after %d", changed, next.Generation, z.ring.Generation)
	}
	z.ring = next
}

// ds is one answer of the parent with the DS records of keys, by place in the ring.
func (z *zone) ds(keys ...int) [][]DS {
	z.t.Helper()
	answer := []DS{}
	for _, i := range keys {
		ds, err := z.ring.Keys[i].DS(z.ring.Zone)
		if err != nil {
			z.t.Fatal(err)
		}
		answer = append(answer, ds)
	}
	return [][]DS{answer}
}

// want compares what the keys do at a time: for each, in order, p if it is published,
// z if it signs the zone, e if it signs the keys, d if its DS record is asked for.
func (z *zone) want(after time.Duration, keys ...string) {
	z.t.Helper()
	set, err := z.ring.At(at(after))
	if err != nil {
		z.t.Fatal(err)
	}
	var got []string
	for i := range z.ring.Keys {
		does := "-"
		if set != nil {
			for name, list := range map[string][]*Key{"p": set.Published, "z": set.Zone, "e": set.Entry, "d": set.Parent} {
				if slices.ContainsFunc(list, func(k *Key) bool { return k.Tag() == z.ring.Keys[i].Tag() }) {
					does += name
				}
			}
		}
		letters := strings.Split(does, "")
		slices.Sort(letters)
		got = append(got, strings.Join(letters, ""))
	}
	if !slices.Equal(got, keys) {
		z.t.Errorf("at %v the keys do %v, want %v", after, got, keys)
	}
}

// until checks that nothing changes from one time to just before another, and that
// this is what Until says.
func (z *zone) until(from, to time.Duration) {
	z.t.Helper()
	set, err := z.ring.At(at(from))
	if err != nil || !set.Until.Equal(at(to)) {
		z.t.Errorf("after %v the keys change at %v, want %v; %v", from, set.Until.Sub(start), to, err)
	}
}

const (
	hour = time.Hour
	both = 20 * time.Minute // twice the propagation of slow
)

func TestFirstKeys(t *testing.T) {
	z := newZone(t, slow)
	z.want(0, "-epz")
	z.until(0, 5*hour+both)
	z.want(5*hour+both, "-depz")
	if s := z.ring.Status(at(hour)); len(s.DS) != 0 || s.Keys[0].State != "published" {
		t.Errorf("before the parent may have a DS record: %+v", s)
	}
	if s := z.ring.Status(at(6 * hour)); len(s.DS) != 1 || s.Keys[0].State != "ready, waits for its DS" || s.Waiting == "" {
		t.Errorf("after: %+v", s)
	}
	z = newZone(t, split(slow))
	z.want(0, "-ep", "-pz")
	z.want(5*hour+both, "-dep", "-pz")
}

func TestRolloverOfAZSK(t *testing.T) {
	z := newZone(t, split(slow))
	z.advance(239*hour, nil)
	z.want(239*hour, "-dep", "-pz")
	z.advance(240*hour, nil)
	z.want(240*hour, "-dep", "-pz", "-p")
	active := 240*hour + hour + both
	z.until(240*hour, active)
	z.want(active, "-dep", "-p", "-pz")
	z.until(active, active+5*hour+both)
	z.want(active+5*hour+both, "-dep", "-", "-pz")
	z.advance(active+5*hour+both, nil)
	if len(z.ring.Keys) != 3 {
		t.Error("a key was erased as soon as it left, while other clocks may be behind")
	}
	z.advance(active+5*hour+2*both, nil)
	z.want(active+5*hour+2*both, "-dep", "-pz")
}

func TestRolloverOfACSK(t *testing.T) {
	z := newZone(t, slow)
	z.advance(2000*hour, nil)
	z.want(2000*hour, "-depz") // the parent has never had a DS record: no reason to
	z.advance(2000*hour, z.ds(0))
	z.advance(2960*hour, z.ds(0))
	from := 2960 * hour
	z.want(from, "-depz", "-ep")
	known := from + hour + both
	z.want(known, "-ep", "-depz")
	z.advance(known+100*hour, z.ds(0)) // the parent takes its time
	z.advance(known+100*hour, z.ds(0, 1))
	z.want(known+200*hour, "-ep", "-depz")
	z.advance(known+200*hour, slices.Concat(z.ds(1), z.ds(0))) // only one resolver has it
	z.want(known+300*hour, "-ep", "-depz")
	z.advance(known+300*hour, slices.Concat(z.ds(1), z.ds(1)))
	removed := known + 300*hour + 26*hour + both
	z.until(known+300*hour, removed)
	z.want(removed, "-", "-depz")
}

// The parent goes back to the DS record of before: the key stays, for long enough
// to be sure again.
func TestParentChangesItsMind(t *testing.T) {
	for _, p := range []Policy{slow, split(slow)} {
		z := newZone(t, p)
		z.advance(10*hour, z.ds(0))
		before := z.ring.Keys[0].Tag()
		there := func(after time.Duration) bool {
			set, err := z.ring.At(at(after))
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(set.Published, func(k *Key) bool { return k.Tag() == before })
		}
		var err error
		if z.ring, err = z.ring.Roll(at(20*hour), p, KSK, source(99)); err != nil {
			t.Fatal(err)
		}
		newest := len(z.ring.Keys) - 1
		z.advance(30*hour, z.ds(newest))
		for i := range 5 { // over and over
			z.advance(time.Duration(50+20*i)*hour, z.ds(0))
			z.advance(time.Duration(55+20*i)*hour, z.ds(newest))
		}
		if !there(150 * hour) {
			t.Error("the key before was removed")
		}
		if there(400 * hour) {
			t.Error("the key before was never removed")
		}
	}
}

func TestRolloverOfTheAlgorithm(t *testing.T) {
	z := newZone(t, slow)
	z.advance(10*hour, z.ds(0))
	z.p = with(slow, Ed25519)
	z.advance(100*hour, z.ds(0))
	z.want(100*hour, "-depz", "-z")
	published := 100*hour + 5*hour + both
	z.want(published, "-depz", "-epz")
	offered := published + hour + both
	z.want(offered, "-epz", "-depz")
	z.advance(offered+hour, z.ds(1))
	removed := offered + hour + 26*hour + both
	z.want(removed, "-z", "-depz")
	z.want(removed+hour+both, "-", "-depz")
	z.advance(removed+hour+2*both, nil)
	z.want(removed+hour+2*both, "-depz")

	z = newZone(t, split(slow))
	z.p = split(with(slow, Ed25519))
	z.advance(100*hour, z.ds(0))
	z.want(100*hour, "-dep", "-pz", "-", "-z")
	z.want(published, "-dep", "-pz", "-ep", "-pz")
	z.advance(offered, z.ds(2))
	removed = offered + 26*hour + both
	z.want(removed, "-", "-z", "-dep", "-pz")
	z.want(removed+hour+both, "-", "-", "-dep", "-pz")
}

func TestChangeOfScheme(t *testing.T) {
	z := newZone(t, slow)
	z.advance(10*hour, z.ds(0))
	z.p = split(slow)
	z.advance(100*hour, z.ds(0))
	known := 100*hour + hour + both
	z.want(100*hour, "-depz", "-ep", "-p")
	z.want(known, "-ep", "-dep", "-pz")
	z.advance(known+hour, z.ds(1))
	removed := known + hour + 26*hour + both
	z.want(removed, "-", "-dep", "-pz")
	z.advance(removed+both, nil)
	z.p = slow
	z.advance(200*hour, z.ds(0))
	known = 200*hour + hour + both
	z.want(known, "-ep", "-p", "-depz")
	z.advance(known+hour, z.ds(2))
	z.want(known+40*hour, "-", "-", "-depz")
}

func TestRollByHand(t *testing.T) {
	z := newZone(t, split(slow))
	roll := func(after time.Duration, role Role, ok bool) {
		t.Helper()
		next, err := z.ring.Roll(at(after), z.p, role, source(uint64(after)))
		if (err == nil) != ok || !ok && !errors.Is(err, ErrBusy) {
			t.Errorf("rolling a %s after %v: %v, want it done = %v", role, after, err, ok)
		}
		z.ring = next
	}
	roll(hour, KSK, true)
	z.want(hour, "-ep", "-pz", "-ep")
	// The first key was not to have a DS record before 5h20m: the next one neither.
	z.want(5*hour, "-ep", "-pz", "-ep")
	z.want(5*hour+both, "-ep", "-pz", "-dep")
	roll(2*hour, KSK, false)
	roll(2*hour, CSK, false)
	roll(2*hour, ZSK, true)
	roll(3*hour, ZSK, false)
	roll(20*hour, ZSK, true)
}

func TestConfirmByHand(t *testing.T) {
	z := newZone(t, slow)
	tag := z.ring.Keys[0].Tag()
	if _, err := z.ring.Confirm(at(hour), slow, tag); !errors.Is(err, ErrNoKey) {
		t.Errorf("confirmed before it may be: %v", err)
	}
	next, err := z.ring.Confirm(at(6*hour), slow, tag)
	if err != nil || !next.Keys[0].Secured.Equal(at(6*hour)) {
		t.Errorf("%v, %v", next, err)
	}
	if _, err := z.ring.Confirm(at(6*hour), slow, tag+1); !errors.Is(err, ErrNoKey) {
		t.Errorf("confirmed another key: %v", err)
	}
}

func TestLeaveAndStay(t *testing.T) {
	z := newZone(t, slow)
	z.advance(10*hour, z.ds(0))
	do := func(next Ring, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		z.ring = next
	}
	do(z.ring.Leave(at(20*hour), slow))
	set, err := z.ring.At(at(20 * hour))
	if err != nil || !set.Delete || len(set.Parent) != 0 || len(set.Published) != 1 {
		t.Errorf("leaving: %+v, %v", set, err)
	}
	z.advance(30*hour, z.ds(0))
	z.want(300*hour, "-epz")
	z.advance(300*hour, z.ds())
	z.want(300*hour+26*hour, "-epz")
	z.advance(310*hour, z.ds(0)) // there again
	z.want(400*hour, "-epz")
	do(z.ring.Stay(at(400*hour), slow, source(5)))
	z.want(400*hour, "-depz")
	do(z.ring.Leave(at(450*hour), slow))
	z.advance(450*hour, z.ds())
	do(z.ring.Stay(at(460*hour), slow, source(5)))
	z.want(460*hour, "-depz")
	if s := z.ring.Status(at(460 * hour)); !strings.Contains(s.Waiting, "to have the DS record") {
		t.Errorf("the parent has no DS record any more, the zone waits %q", s.Waiting)
	}
	z.advance(470*hour, z.ds(0))
	if s := z.ring.Status(at(470 * hour)); s.Waiting != "" {
		t.Errorf("the parent has the DS record again, the zone waits %q", s.Waiting)
	}
	do(z.ring.Leave(at(500*hour), slow))
	z.advance(500*hour, z.ds())
	gone := 500*hour + 26*hour + both
	z.until(500*hour, gone)
	z.want(gone, "-")
	before := z.ring.Keys[0].Tag()
	do(z.ring.Stay(at(gone+hour), slow, source(5)))
	z.want(gone+hour, "-epz")
	z.want(gone+hour+5*hour+both, "-depz")
	if z.ring.Keys[0].Tag() == before {
		t.Error("a zone that had been unsigned has its old key")
	}
}

// New TTLs are taken when nothing is under way, and rollovers wait for the old ones.
func TestNewTTLs(t *testing.T) {
	z := newZone(t, slow)
	z.advance(10*hour, z.ds(0))
	z.p.MaxTTL, z.p.KeyTTL = 50*hour, 2*hour
	z.advance(20*hour, nil)
	if z.ring.MaxTTL != 50*hour || z.ring.KeyTTL != 2*hour {
		t.Fatalf("%+v", z.ring)
	}
	if _, err := z.ring.Roll(at(69*hour), z.p, CSK, source(1)); !errors.Is(err, ErrBusy) {
		t.Errorf("rolled while caches may have what the old TTLs gave: %v", err)
	}
	if _, err := z.ring.Roll(at(71*hour), z.p, CSK, source(1)); err != nil {
		t.Error(err)
	}
}

func TestPolicyRules(t *testing.T) {
	for name, change := range map[string]func(*Policy){
		"algorithm":   func(p *Policy) { p.Algorithm = 8 },
		"propagation": func(p *Policy) { p.Propagation = 0 },
		"ttl":         func(p *Policy) { p.KeyTTL = 0 },
		"negative":    func(p *Policy) { p.ParentTTL = -1 },
		"lifetime":    func(p *Policy) { p.Split, p.ZoneLifetime = true, 6*hour },
	} {
		p := slow
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
		if _, _, err := (Ring{}).Advance(start, "edge.example", p, nil, source(1)); err == nil {
			t.Errorf("%s: a ring was made", name)
		}
	}
}

// A source that always yields the same must not make two keys of it.
func TestRepeatingRandomness(t *testing.T) {
	z := newZone(t, slow)
	if next, err := z.ring.Roll(at(hour), slow, CSK, repeat{z.ring.Keys[0].Secret}); err == nil || fmt.Sprint(next) != fmt.Sprint(z.ring) {
		t.Errorf("%v, %v", next, err)
	}
}

type repeat struct{ s Secret }

func (r repeat) Read(p []byte) (int, error) { return copy(p, r.s[:]), nil }
