// Package fleettest holds what tests of a [fleet.Store] and of its users share:
// the contract that every Store keeps ([Run]) and a Store that fails on demand
// ([Faults]).
package fleettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/internal/fleet"
)

// Suite is what [Run] needs to know of a kind of store.
type Suite struct {
	// New returns an empty store, which stays usable until the test ends. Two
	// of them share nothing.
	New func(testing.TB) fleet.Store
	// TTL is the shortest session that the store takes as it is asked.
	TTL time.Duration
	// ExpiresWithin is how long after its ttl a session may still live.
	ExpiresWithin time.Duration
}

// patience bounds every call that should answer at once.
const patience = 10 * time.Second

// Run checks that a store keeps the contract in the comments of [fleet.Store].
func Run(t *testing.T, suite Suite) {
	tests := []struct {
		name string
		run  func(*testing.T, *subject)
	}{
		{"GetMissing", getMissing},
		{"CompareAndSwap", compareAndSwap},
		{"SameValueChangesNothing", sameValue},
		{"Delete", deleteKey},
		{"IndexGrows", indexGrows},
		{"List", list},
		{"OddValues", oddValues},
		{"WatchAtOnce", watchAtOnce},
		{"WatchWakesUp", watchWakesUp},
		{"WatchOnlyItsPrefix", watchOnlyItsPrefix},
		{"WatchMissesNothing", watchMissesNothing},
		{"WatchEndsWithContext", watchEndsWithContext},
		{"Bind", bind},
		{"BindTakesOverUnbound", bindTakesOver},
		{"SwapKeepsSession", swapKeepsSession},
		{"BindAndSwap", bindAndSwap},
		{"EndSession", endSession},
		{"SessionGone", sessionGone},
		{"SessionExpires", sessionExpires},
		{"RenewalKeepsSession", renewalKeeps},
		{"ConcurrentSwaps", concurrentSwaps},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			test.run(t, &subject{Store: suite.New(t), t: t, ctx: ctx, suite: suite})
		})
	}
}

// subject is a store under test, with calls that must succeed.
type subject struct {
	fleet.Store
	t     *testing.T
	ctx   context.Context
	suite Suite
}

func (s *subject) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) wantErr(got, want error) {
	s.t.Helper()
	if !errors.Is(got, want) {
		s.t.Fatalf("error %v, want %v", got, want)
	}
}

func (s *subject) get(key string) fleet.Entry {
	s.t.Helper()
	e, err := s.Get(s.ctx, key)
	s.must(err)
	return e
}

func (s *subject) put(key, value string, prev uint64) uint64 {
	s.t.Helper()
	index, err := s.CompareAndSwap(s.ctx, key, []byte(value), prev)
	s.must(err)
	return index
}

func (s *subject) session() fleet.Session {
	s.t.Helper()
	session, err := s.NewSession(s.ctx, "contract", s.suite.TTL)
	s.must(err)
	s.t.Cleanup(func() { _ = s.EndSession(context.Background(), session) })
	return session
}

// awaitGone waits until key is gone, and returns how long that took.
func (s *subject) awaitGone(ctx context.Context, key string) time.Duration {
	s.t.Helper()
	began := time.Now()
	entries, index, err := s.List(ctx, key)
	for {
		s.must(err)
		if len(entries) == 0 {
			return time.Since(began)
		}
		entries, index, err = s.Watch(ctx, key, index)
	}
}

func getMissing(_ *testing.T, s *subject) {
	_, err := s.Get(s.ctx, "nothing")
	s.wantErr(err, fleet.ErrNotFound)
	entries, index, err := s.List(s.ctx, "nothing/")
	s.must(err)
	if len(entries) != 0 || index == 0 {
		s.t.Fatalf("an empty prefix has %v, index %d", entries, index)
	}
}

func compareAndSwap(t *testing.T, s *subject) {
	first := s.put("k", "one", 0)
	_, err := s.CompareAndSwap(s.ctx, "k", []byte("again"), 0)
	s.wantErr(err, fleet.ErrConflict)
	_, err = s.CompareAndSwap(s.ctx, "k", []byte("stale"), first+1000)
	s.wantErr(err, fleet.ErrConflict)
	_, err = s.CompareAndSwap(s.ctx, "other", []byte("missing"), first)
	s.wantErr(err, fleet.ErrConflict)

	second := s.put("k", "two", first)
	if second <= first {
		t.Fatalf("index went from %d to %d", first, second)
	}
	_, err = s.CompareAndSwap(s.ctx, "k", []byte("stale"), first)
	s.wantErr(err, fleet.ErrConflict)
	if e := s.get("k"); string(e.Value) != "two" || e.Index != second || e.Key != "k" || e.Session != "" {
		t.Fatalf("got %+v, want two with index %d", e, second)
	}
}

func sameValue(t *testing.T, s *subject) {
	first := s.put("k", "same", 0)
	if again := s.put("k", "same", first); again != first {
		t.Fatalf("writing the same value moved the index from %d to %d", first, again)
	}
	session := s.session()
	s.must(s.Bind(s.ctx, "b", []byte("same"), session))
	before := s.get("b").Index
	s.must(s.Bind(s.ctx, "b", []byte("same"), session))
	if after := s.get("b").Index; after != before {
		t.Fatalf("binding the same value moved the index from %d to %d", before, after)
	}
}

func deleteKey(t *testing.T, s *subject) {
	index := s.put("k", "one", 0)
	_, err := s.CompareAndSwap(s.ctx, "k", nil, index+1000)
	s.wantErr(err, fleet.ErrConflict)
	_, err = s.CompareAndSwap(s.ctx, "k", nil, index)
	s.must(err)
	_, err = s.Get(s.ctx, "k")
	s.wantErr(err, fleet.ErrNotFound)
	if _, err = s.CompareAndSwap(s.ctx, "k", nil, index); err != nil {
		t.Fatalf("deleting what is gone: %v", err)
	}
	if _, err = s.CompareAndSwap(s.ctx, "k", nil, 0); err == nil {
		t.Fatal("a deletion without an index succeeded")
	}
	if again := s.put("k", "two", 0); again <= index {
		t.Fatalf("a key made again has index %d, not above %d", again, index)
	}
}

func indexGrows(t *testing.T, s *subject) {
	var last uint64
	check := func(what string, index uint64) {
		t.Helper()
		if index <= last {
			t.Fatalf("%s: index %d, not above %d", what, index, last)
		}
		last = index
	}
	check("create", s.put("p/a", "1", 0))
	check("create another", s.put("p/b", "1", 0))
	check("change", s.put("p/a", "2", s.get("p/a").Index))
	s.must(s.Bind(s.ctx, "p/c", []byte("1"), s.session()))
	check("bind", s.get("p/c").Index)
	_, listed, err := s.List(s.ctx, "p/")
	s.must(err)
	if listed < last {
		t.Fatalf("list has index %d, below %d of an entry", listed, last)
	}
	_, err = s.CompareAndSwap(s.ctx, "p/b", nil, s.get("p/b").Index)
	s.must(err)
	_, after, err := s.List(s.ctx, "p/")
	s.must(err)
	if after <= listed {
		t.Fatalf("a deletion left the index of the list at %d", after)
	}
}

func list(t *testing.T, s *subject) {
	for _, key := range []string{"p/b", "p/a", "p/a/deep", "p/c", "px", "o"} {
		s.put(key, "v-"+key, 0)
	}
	entries, _, err := s.List(s.ctx, "p/")
	s.must(err)
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key)
		if string(e.Value) != "v-"+e.Key || e.Index == 0 {
			t.Errorf("got %+v", e)
		}
	}
	if want := []string{"p/a", "p/a/deep", "p/b", "p/c"}; !slices.Equal(keys, want) {
		t.Fatalf("got %v, want %v", keys, want)
	}
}

func oddValues(t *testing.T, s *subject) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, value := range [][]byte{{}, all, bytes.Repeat([]byte{0xff}, fleet.MaxValue)} {
		key := fmt.Sprintf("odd/%d", i)
		_, err := s.CompareAndSwap(s.ctx, key, value, 0)
		s.must(err)
		if e := s.get(key); e.Value == nil || !bytes.Equal(e.Value, value) {
			t.Errorf("%d bytes came back as %d (nil: %v)", len(value), len(e.Value), e.Value == nil)
		}
	}
	s.must(s.Bind(s.ctx, "odd/nil", nil, s.session()))
	if e := s.get("odd/nil"); e.Value == nil || len(e.Value) != 0 {
		t.Errorf("a nil value came back as %q", e.Value)
	}
	if _, err := s.CompareAndSwap(s.ctx, "odd/large", make([]byte, fleet.MaxValue+1), 0); err == nil {
		t.Error("a value above MaxValue was taken")
	}
	if _, err := s.CompareAndSwap(s.ctx, "/odd", []byte("x"), 0); err == nil {
		t.Error("a key with a leading slash was taken")
	}
}

func watchAtOnce(t *testing.T, s *subject) {
	index := s.put("p/a", "1", 0)
	for _, after := range []uint64{0, index - 1} {
		entries, next, err := s.Watch(s.ctx, "p/", after)
		s.must(err)
		if len(entries) != 1 || next < index {
			t.Fatalf("after %d: got %v, index %d", after, entries, next)
		}
	}
}

// watch calls Watch until a reading satisfies want.
func (s *subject) watch(prefix string, after uint64, want func([]fleet.Entry) bool) error {
	for {
		entries, index, err := s.Watch(s.ctx, prefix, after)
		if err != nil {
			return err
		}
		if want(entries) {
			return nil
		}
		after = index
	}
}

func watchWakesUp(_ *testing.T, s *subject) {
	_, index, err := s.List(s.ctx, "p/")
	s.must(err)
	done := make(chan error, 1)
	go func() {
		done <- s.watch("p/", index, func(entries []fleet.Entry) bool { return len(entries) == 1 })
	}()
	created := s.put("p/a", "1", 0)
	s.must(<-done)

	_, index, err = s.List(s.ctx, "p/")
	s.must(err)
	go func() {
		done <- s.watch("p/", index, func(entries []fleet.Entry) bool { return len(entries) == 0 })
	}()
	_, err = s.CompareAndSwap(s.ctx, "p/a", nil, created)
	s.must(err)
	s.must(<-done)
}

func watchOnlyItsPrefix(t *testing.T, s *subject) {
	s.put("p/a", "1", 0)
	_, index, err := s.List(s.ctx, "p/")
	s.must(err)
	type reading struct {
		entries []fleet.Entry
		err     error
	}
	done := make(chan reading, 1)
	go func() {
		entries, _, err := s.Watch(s.ctx, "p/", index)
		done <- reading{entries, err}
	}()
	s.put("q/a", "1", 0)
	s.put("p/b", "1", 0)
	r := <-done
	s.must(r.err)
	for _, e := range r.entries {
		if !strings.HasPrefix(e.Key, "p/") {
			t.Errorf("a watch of p/ returned %s", e.Key)
		}
	}
}

// A writer counts up while a reader follows: the reader must see the last
// count, whatever fell between its calls.
func watchMissesNothing(t *testing.T, s *subject) {
	const last = 50
	_, index, err := s.List(s.ctx, "p/")
	s.must(err)
	done := make(chan error, 1)
	go func() {
		done <- s.watch("p/", index, func(entries []fleet.Entry) bool {
			return len(entries) == 1 && string(entries[0].Value) == fmt.Sprint(last)
		})
	}()
	var prev uint64
	for i := range last + 1 {
		prev = s.put("p/count", fmt.Sprint(i), prev)
		s.put(fmt.Sprintf("elsewhere/%d", i), "x", 0)
	}
	if err := <-done; err != nil {
		t.Fatalf("the last change was missed: %v", err)
	}
}

func watchEndsWithContext(t *testing.T, s *subject) {
	_, index, err := s.List(s.ctx, "p/")
	s.must(err)
	ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
	defer cancel()
	for err == nil {
		_, index, err = s.Watch(ctx, "p/", index)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
}

func bind(t *testing.T, s *subject) {
	one, two := s.session(), s.session()
	if one == two || one == "" {
		t.Fatalf("sessions %q and %q", one, two)
	}
	s.must(s.Bind(s.ctx, "k", []byte("1"), one))
	s.wantErr(s.Bind(s.ctx, "k", []byte("2"), two), fleet.ErrConflict)
	if e := s.get("k"); string(e.Value) != "1" || e.Session != one {
		t.Fatalf("after a refused bind: %+v", e)
	}
	s.must(s.Bind(s.ctx, "k", []byte("3"), one))
	if e := s.get("k"); string(e.Value) != "3" || e.Session != one {
		t.Fatalf("after a second bind: %+v", e)
	}
	entries, _, err := s.List(s.ctx, "k")
	s.must(err)
	if len(entries) != 1 || entries[0].Session != one {
		t.Fatalf("list: %+v", entries)
	}
}

func bindTakesOver(t *testing.T, s *subject) {
	session := s.session()
	s.put("k", "unbound", 0)
	s.must(s.Bind(s.ctx, "k", []byte("bound"), session))
	if e := s.get("k"); string(e.Value) != "bound" || e.Session != session {
		t.Fatalf("got %+v", e)
	}
	s.must(s.EndSession(s.ctx, session))
	_, err := s.Get(s.ctx, "k")
	s.wantErr(err, fleet.ErrNotFound)
}

func swapKeepsSession(t *testing.T, s *subject) {
	session := s.session()
	s.must(s.Bind(s.ctx, "k", []byte("1"), session))
	s.put("k", "2", s.get("k").Index)
	if e := s.get("k"); string(e.Value) != "2" || e.Session != session {
		t.Fatalf("got %+v", e)
	}
	s.must(s.EndSession(s.ctx, session))
	_, err := s.Get(s.ctx, "k")
	s.wantErr(err, fleet.ErrNotFound)
}

// Both keys are written, or neither is.
func bindAndSwap(t *testing.T, s *subject) {
	one, two := s.session(), s.session()
	try := func(session fleet.Session, value string, prev uint64) error {
		return s.BindAndSwap(s.ctx, fleet.Binding{Key: "b", Value: []byte("by " + value), Session: session}, "k", []byte(value), prev)
	}
	expect := func(when, value string, session fleet.Session) uint64 {
		t.Helper()
		b, k := s.get("b"), s.get("k")
		if string(b.Value) != "by "+value || b.Session != session || string(k.Value) != value || k.Session != "" {
			t.Fatalf("%s: %+v and %+v", when, b, k)
		}
		return k.Index
	}
	s.wantErr(try(one, "0", 1000), fleet.ErrConflict)
	for _, key := range []string{"b", "k"} {
		_, err := s.Get(s.ctx, key)
		s.wantErr(err, fleet.ErrNotFound)
	}
	s.must(try(one, "1", 0))
	first := expect("created", "1", one)
	s.must(try(one, "2", first))
	second := expect("once more", "2", one)
	if second <= first {
		t.Fatalf("index %d after %d", second, first)
	}
	s.wantErr(try(one, "3", first), fleet.ErrConflict)
	s.wantErr(try(two, "3", second), fleet.ErrConflict)
	if expect("both refused", "2", one) != second {
		t.Fatal("a refused write counted")
	}
	s.must(s.EndSession(s.ctx, one))
	s.wantErr(try(one, "3", second), fleet.ErrSession)
	if k := s.get("k"); string(k.Value) != "2" || k.Index != second {
		t.Fatalf("after the session: %+v", k)
	}
	for _, bad := range []error{
		s.BindAndSwap(s.ctx, fleet.Binding{Key: "k", Session: two}, "k", []byte("x"), second),
		s.BindAndSwap(s.ctx, fleet.Binding{Key: "b", Session: two}, "k", nil, second),
		s.BindAndSwap(s.ctx, fleet.Binding{Key: "b", Session: two}, "/k", []byte("x"), 0),
	} {
		if bad == nil || errors.Is(bad, fleet.ErrConflict) {
			t.Fatalf("error %v, want that it makes no sense", bad)
		}
	}
}

func endSession(t *testing.T, s *subject) {
	one, two := s.session(), s.session()
	s.must(s.Bind(s.ctx, "k/1", []byte("1"), one))
	s.must(s.Bind(s.ctx, "k/2", []byte("1"), one))
	s.must(s.Bind(s.ctx, "k/3", []byte("1"), two))
	s.put("k/4", "1", 0)
	s.must(s.EndSession(s.ctx, one))
	entries, _, err := s.List(s.ctx, "k/")
	s.must(err)
	if len(entries) != 2 || entries[0].Key != "k/3" || entries[1].Key != "k/4" {
		t.Fatalf("left: %v", entries)
	}
	s.must(s.EndSession(s.ctx, one)) // again
	// The key is free at once, or a restarted node would be kept out.
	deadline := time.Now().Add(time.Second)
	err = s.Bind(s.ctx, "k/1", []byte("2"), two)
	for errors.Is(err, fleet.ErrConflict) && time.Now().Before(deadline) {
		err = s.Bind(s.ctx, "k/1", []byte("2"), two)
	}
	s.must(err)
}

func sessionGone(_ *testing.T, s *subject) {
	session := s.session()
	s.must(s.RenewSession(s.ctx, session))
	s.must(s.EndSession(s.ctx, session))
	s.wantErr(s.RenewSession(s.ctx, session), fleet.ErrSession)
	s.wantErr(s.Bind(s.ctx, "k", []byte("1"), session), fleet.ErrSession)
	_, err := s.Get(s.ctx, "k")
	s.wantErr(err, fleet.ErrNotFound)
	if _, err := s.NewSession(s.ctx, "contract", 0); err == nil {
		s.t.Fatal("a session without a ttl began")
	}
}

func sessionExpires(t *testing.T, s *subject) {
	ctx, cancel := context.WithTimeout(t.Context(), s.suite.TTL+s.suite.ExpiresWithin+patience)
	defer cancel()
	session := s.session()
	s.must(s.Bind(s.ctx, "k", []byte("1"), session))
	s.must(s.RenewSession(s.ctx, session)) // from here on
	took := s.awaitGone(ctx, "k")
	if slack := s.suite.TTL / 10; took < s.suite.TTL-slack || took > s.suite.TTL+s.suite.ExpiresWithin {
		t.Fatalf("gone after %v, want %v and up to %v more", took, s.suite.TTL, s.suite.ExpiresWithin)
	}
	s.ctx = ctx
	s.wantErr(s.RenewSession(ctx, session), fleet.ErrSession)
	s.wantErr(s.Bind(ctx, "k", []byte("1"), session), fleet.ErrSession)
}

func renewalKeeps(t *testing.T, s *subject) {
	// Longer than an unrenewed session could live.
	span := s.suite.TTL + s.suite.ExpiresWithin + s.suite.TTL/2
	ctx, cancel := context.WithTimeout(t.Context(), span+patience)
	defer cancel()
	session := s.session()
	s.must(s.Bind(s.ctx, "k", []byte("1"), session))
	renew := time.NewTicker(s.suite.TTL / 8) // a busy machine may miss several
	defer renew.Stop()
	for end := time.After(span); ; {
		select {
		case <-renew.C:
			s.must(s.RenewSession(ctx, session))
			continue
		case <-end:
		}
		break
	}
	if _, err := s.Get(ctx, "k"); err != nil {
		t.Fatalf("a renewed session lost its key: %v", err)
	}
}

// Writers add one each under contention: exactly as many additions as
// successes.
func concurrentSwaps(t *testing.T, s *subject) {
	const writers, each = 4, 10
	done := make(chan error, writers)
	for range writers {
		go func() {
			for range each {
				if err := s.increment("count"); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		s.must(<-done)
	}
	if e := s.get("count"); len(e.Value) != writers*each {
		t.Fatalf("%d additions, want %d", len(e.Value), writers*each)
	}
}

func (s *subject) increment(key string) error {
	for {
		e, err := s.Get(s.ctx, key)
		if err != nil && !errors.Is(err, fleet.ErrNotFound) {
			return err
		}
		_, err = s.CompareAndSwap(s.ctx, key, append(bytes.Clone(e.Value), '+'), e.Index)
		if !errors.Is(err, fleet.ErrConflict) {
			return err
		}
	}
}
