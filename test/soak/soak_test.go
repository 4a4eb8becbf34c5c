// Package soak lets everything go wrong at once, for as long as it is told, and
// wants every byte right.
//
// A worker serves clients of every front protocol from origins of every back
// protocol, all in this process. What a client and an origin do in an exchange
// is drawn before it begins, in a plan that both have: how large the bodies
// are, in which pieces they are sent, who pauses, and who breaks it off, how
// and when. Meanwhile origins come and go, snapshots are applied and the worker
// drains. Then:
//
//   - every byte that anybody receives is the one that was sent, and the digest
//     of every message that looks complete is the one that its sender announced;
//   - no message looks complete that its sender has not completed;
//   - an exchange that nobody breaks off is not broken off;
//   - at the end, no goroutine, descriptor or buffer is left.
//
// Decisions come from a seed, which is printed; what happens at the same time
// does not. ANYEDGE_SOAK_SEED repeats the decisions, ANYEDGE_SOAK is how long
// it takes.
//
// # Concurrency
//
// Each client runs on its own; [chaos] is the only one that changes the edge.
package soak

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/pop/proxy"
	"anyedge/pop/proxy/buffers"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// soak is one run.
type soak struct {
	t        *testing.T
	edge     *edge
	tally    *tally
	stopping atomic.Bool // the worker is about to end

	exchanges sync.Map // by id
	mu        sync.Mutex
	over      []string       // exchanges that are over, and still known
	wrongs    map[string]int // by kind
}

// mostWrongs is how many wrongs of one kind are told of.
const mostWrongs = 2

// wrong reports what must never happen.
func (s *soak) wrong(kind, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrongs[kind]++
	if s.wrongs[kind] <= mostWrongs {
		s.t.Error(what)
	} else {
		s.t.Fail()
	}
}

func (s *soak) event(what string) { s.tally.event(what) }

// find returns an exchange that is not long over; else nil.
func (s *soak) find(id string) *exchange {
	x, ok := s.exchanges.Load(id)
	if !ok {
		return nil
	}
	return x.(*exchange)
}

// remembered is for how many exchanges an origin may be late.
const remembered = 1000

// forget lets go of an exchange that is over, after a while.
func (s *soak) forget(x *exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over = append(s.over, x.id); len(s.over) > remembered {
		s.exchanges.Delete(s.over[0])
		s.over = s.over[1:]
	}
}

func TestSoak(t *testing.T) {
	span := 8 * time.Second
	if testing.Short() {
		span = 2 * time.Second
	}
	if text := os.Getenv("ANYEDGE_SOAK"); text != "" {
		var err error
		if span, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ANYEDGE_SOAK_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s, ANYEDGE_SOAK_SEED=%d", span, seed)
	warmUp(t)
	before := count()

	s := &soak{t: t, tally: newTally(), wrongs: make(map[string]int)}
	s.run(seed, span)
	t.Logf("\n%s", s.tally)
	for kind, n := range s.wrongs {
		t.Logf("wrong %d times: %s", n, kind)
	}
	if s.tally.total() == 0 {
		t.Error("there was no exchange")
	}
	checkLeft(t, before)
}

func (s *soak) run(seed uint64, span time.Duration) {
	generator := func(of uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, of)) }
	var groups []*group
	var pools []proxy.Pool
	for _, b := range backs() {
		for _, kind := range []string{"steady", "flaky"} {
			g := &group{name: kind + "-" + b.name, back: b, flaky: kind == "flaky"}
			groups = append(groups, g)
			pools = append(pools, newPool(g.name, b, g.flaky))
		}
	}
	s.edge = startEdge(s.t, s, pools)
	for _, g := range groups {
		for range 3 {
			o := new(place)
			if err := o.start(s, g.back); err != nil {
				s.t.Error(err)
				continue
			}
			g.origins = append(g.origins, o)
		}
	}
	c := &chaos{soak: s, rand: generator(0), groups: groups}
	for _, g := range groups {
		c.poolOf(g)
	}

	ctx, stop := context.WithCancel(context.Background()) // without a deadline, which dialling would exceed a little early
	defer time.AfterFunc(span, stop).Stop()
	var clients, disturber sync.WaitGroup
	number := uint64(0)
	for range 3 {
		for _, f := range fronts() {
			number++
			r := generator(number)
			draw := s.drawer(f, number, groups, r)
			if f.open != nil {
				client := &streamsClient{soak: s, front: f, rand: r, draw: draw, streams: 1 + r.IntN(8)}
				clients.Go(func() { client.run(ctx) })
			} else {
				client := &h1Client{soak: s, front: f, rand: r, draw: draw}
				clients.Go(func() { client.run(ctx) })
			}
		}
	}
	disturber.Go(func() { c.run(ctx) })
	<-ctx.Done()
	disturber.Wait()
	clients.Wait()
	s.stopping.Store(true)
	s.edge.stop()
	select {
	case <-s.edge.stopped:
	case <-time.After(2 * patience):
		s.t.Error("Run does not return")
	}
	for _, g := range groups {
		for _, o := range g.origins {
			if o.now != nil {
				o.now.kill(false)
			}
		}
	}
}

// drawer returns a source of exchanges for one client.
func (s *soak) drawer(f *front, client uint64, groups []*group, r *rand.Rand) func() *exchange {
	sequence := uint64(0)
	return func() *exchange {
		sequence++
		g := pick(r, groups...)
		p := newPlan(r, client, sequence, f.open != nil, g.flaky)
		x := &exchange{
			plan: p, soak: s, pair: f.name + "→" + g.back.name,
			host: g.name + "." + zone, flaky: g.flaky, begun: time.Now(),
		}
		s.exchanges.Store(x.id, x)
		return x
	}
}

// counts are what must not grow.
type counts struct{ goroutines, descriptors int }

func count() counts {
	entries, _ := os.ReadDir("/proc/self/fd")
	return counts{runtime.NumGoroutine(), len(entries)}
}

// warmUp makes what a process has for ever once it uses the network.
func warmUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// checkLeft wants nothing left.
func checkLeft(t *testing.T, before counts) {
	var after counts
	for deadline := time.Now().Add(patience / 3); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC() // idle pipes of splice are kept until then
		if after = count(); after.goroutines <= before.goroutines && after.descriptors <= before.descriptors && buffers.Lent() == 0 {
			break
		}
		if time.Now().After(deadline) {
			break
		}
	}
	if n := buffers.Lent(); n != 0 {
		t.Errorf("%d bytes of buffers are lent for ever", n)
	}
	if after.goroutines > before.goroutines {
		var stacks strings.Builder
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("%d goroutines, %d at the beginning:\n%s", after.goroutines, before.goroutines, stacks.String())
	}
	if after.descriptors > before.descriptors {
		t.Errorf("%d descriptors, %d at the beginning: %s", after.descriptors, before.descriptors, descriptors())
	}
	t.Logf("left: %d goroutines of %d, %d descriptors of %d, %d bytes of buffers", after.goroutines, before.goroutines, after.descriptors, before.descriptors, buffers.Lent())
}

// descriptors tells what the open descriptors are.
func descriptors() string {
	entries, _ := os.ReadDir("/proc/self/fd")
	var all []string
	for _, entry := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		all = append(all, fmt.Sprint(entry.Name(), "=", cmp.Or(target, "?")))
	}
	return strings.Join(all, " ")
}
