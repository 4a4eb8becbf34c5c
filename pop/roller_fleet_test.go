package pop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/configs"
	"anyedge/internal/audit"
	"anyedge/internal/fleet"
	"anyedge/pop/link"
	"anyedge/pop/proxy"
	"anyedge/pop/rollout"
)

// proxyWorkerRole, as the first argument, makes the test binary the worker that
// anyedge itself has.
const proxyWorkerRole = "proxy-worker"

func proxyWorker() {
	conn, err := link.FromFile(os.NewFile(3, "link"))
	if err == nil {
		err = proxy.Serve(context.Background(), conn, quiet, prometheus.NewRegistry())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// rolloutConfig is a node without BGP, which judges and decides all the same. It
// is in haste.
const rolloutConfig = `
node: {name: NODE-1, pop: NODE}
fleet: {memory: true, report_interval: 50ms, report_ttl: 2s}
listeners: [{name: web, address: "LISTEN", clear: true}]
routes: [{pool: api, timeout: 5s}]
pools: [{name: api, backends: [{address: "BACKEND"}], health: {interval: 50ms, timeout: 50ms, rise: 1, fall: 2}}]
health: {probe_interval: 50ms, vitals_interval: 50ms, vitals_timeout: 3s, rise: 1, fall: 3, hold_down: 50ms}
drain: {deprefer: 10ms, withdraw: 10ms, close: 10ms}
`

var kim = audit.Actor{By: "kim"}

// edge is a fleet of whole agents and workers in one place, over one store.
type edge struct {
	t     *testing.T
	store *severed
	dir   string
	pops  []string
	texts map[string]string
	nodes map[string]*edgeNode
}

type edgeNode struct {
	*Agent
	stop func()
}

// severed is a store that can be taken away.
type severed struct {
	fleet.Store
	mu   sync.Mutex
	gone bool
}

func (s *severed) sever(gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = gone
}

func (s *severed) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return errStore
	}
	return nil
}

func (s *severed) Get(ctx context.Context, key string) (fleet.Entry, error) {
	if err := s.err(); err != nil {
		return fleet.Entry{}, err
	}
	return s.Store.Get(ctx, key)
}

func (s *severed) Watch(ctx context.Context, prefix string, after uint64) ([]fleet.Entry, uint64, error) {
	if err := s.err(); err != nil {
		return nil, 0, err
	}
	return s.Store.Watch(ctx, prefix, after)
}

func (s *severed) CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (uint64, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.CompareAndSwap(ctx, key, value, prev)
}

func newEdge(t *testing.T, pops ...string) *edge {
	if testing.Short() {
		t.Skip("starts workers")
	}
	backend := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(backend.Close)
	e := &edge{t: t, store: &severed{Store: fleet.NewMemory()}, dir: t.TempDir(), pops: pops,
		texts: make(map[string]string), nodes: make(map[string]*edgeNode)}
	for _, p := range pops {
		e.texts[p] = strings.NewReplacer("NODE", p, "LISTEN", freeAddress(t).String(),
			"BACKEND", backend.Listener.Addr().String()).Replace(rolloutConfig)
		e.write(p, e.texts[p])
		e.start(p)
	}
	e.await("a whole fleet", func() error {
		for _, n := range e.nodes {
			for _, p := range e.pops {
				r, ok := n.fleet.View().Report(p + "-1")
				if !ok || r.State != fleet.StateHealthy || r.Announcement != fleet.Announced {
					return fmt.Errorf("%s is %s, %s: %s", p, r.State, r.Announcement, r.Reason)
				}
			}
		}
		return nil
	})
	return e
}

func (e *edge) file(pop string) string { return filepath.Join(e.dir, pop+".yaml") }

func (e *edge) write(pop, text string) {
	e.t.Helper()
	if err := os.WriteFile(e.file(pop), []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// start runs a PoP's agent on the config file that is there.
func (e *edge) start(pop string) {
	e.t.Helper()
	cfg, source, err := configs.ReadPop(e.file(pop))
	if err != nil {
		e.t.Fatal(err)
	}
	sealer, err := fleet.ParseKeys([]byte(sealingKey))
	if err != nil {
		e.t.Fatal(err)
	}
	a, err := New(Options{
		File: e.file(pop), Config: cfg, Source: source.Data(), Store: e.store, Sealer: sealer,
		Worker: []string{os.Args[0], proxyWorkerRole}, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			e.t.Errorf("%s: %v", pop, err)
		}
	})
	e.t.Cleanup(stop)
	e.nodes[pop] = &edgeNode{a, stop}
}

// await waits until f returns nil.
func (e *edge) await(what string, f func() error) {
	e.t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	e.t.Fatalf("%s: %v", what, err)
}

// changed returns every PoP's config with something replaced.
func (e *edge) changed(from, to string) map[string]string {
	texts := make(map[string]string)
	for p, text := range e.texts {
		texts[p] = strings.Replace(text, from, to, 1)
	}
	return texts
}

// roll starts a rollout through the first PoP's agent.
func (e *edge) roll(texts map[string]string, soak time.Duration) {
	e.t.Helper()
	req := StartRollout{Soak: configs.Duration(soak), Take: configs.Duration(10 * time.Second)}
	a := e.nodes[e.pops[0]]
	for _, p := range e.pops {
		sum, err := a.PutConfig(e.t.Context(), []byte(texts[p]))
		if err != nil {
			e.t.Fatal(err)
		}
		req.Documents = append(req.Documents, sum)
	}
	e.await("the rollout starts", func() error {
		err := a.StartRollout(e.t.Context(), kim, req)
		if err != nil && !strings.Contains(err.Error(), "has yet to settle") {
			e.t.Fatal(err)
		}
		return err
	})
}

// ends waits for the end of the rollout and returns it.
func (e *edge) ends(want rollout.Phase) rollout.Rollout {
	e.t.Helper()
	var r rollout.Rollout
	e.await("the rollout ends "+string(want), func() error {
		s := e.nodes[e.pops[len(e.pops)-1]].Rollout()
		if s.Rollout == nil {
			return errors.New("there is none")
		}
		if r = *s.Rollout; r.Phase != want {
			return fmt.Errorf("%s, turn %d, open %v: %s; waits for %q, %+v", r.Phase, r.Turn, r.Open, r.Reason, s.Waits, s.Nodes)
		}
		return nil
	})
	return r
}

// runs checks what every node has in force and on disk, with no trace left.
func (e *edge) runs(texts map[string]string) {
	e.t.Helper()
	for _, p := range e.pops {
		e.await(p+" has come to rest", func() error {
			there, err := os.ReadFile(e.file(p))
			if err != nil {
				return err
			}
			if _, err := os.Stat(e.file(p) + ".rollout"); err == nil {
				return errors.New("the mark is still there")
			}
			if !bytes.Equal(there, []byte(texts[p])) {
				return fmt.Errorf("has on disk:\n%s", there)
			}
			return nil
		})
		if want := strings.Contains(texts[p], "timeout: 6s"); want != (e.nodes[p].conf.config().Routes[0].Timeout.Std() == 6*time.Second) {
			e.t.Errorf("%s: new config in force is %v", p, !want)
		}
	}
}

// serves waits until a PoP is announced.
func (e *edge) serves(pop string) {
	e.t.Helper()
	e.await(pop+" is announced", func() error {
		if s := e.nodes[pop].Status(); s.Announcement.State != Announced {
			return errors.New(s.Announcement.Reason)
		}
		return nil
	})
}

func TestGoodRolloutGoesThroughTheFleet(t *testing.T) {
	e := newEdge(t, "fra", "iad", "sin")
	texts := e.changed("timeout: 5s", "timeout: 6s")
	// Never more than one PoP is on the new config before its turn has passed.
	stop, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			view := e.nodes["fra"].fleet.View()
			if view.Rollout == nil {
				continue
			}
			r, err := rollout.Decode(view.Rollout)
			for i, p := range e.pops {
				new := e.nodes[p].conf.config().Routes[0].Timeout.Std() == 6*time.Second
				// The view may be behind, but not by more than a turn.
				if err == nil && new && i > r.Turn+1 {
					t.Errorf("%s has the new config in turn %d", p, r.Turn)
				}
			}
		}
	}()
	begun := time.Now()
	e.roll(texts, 300*time.Millisecond)
	if err := e.nodes["iad"].StartRollout(t.Context(), kim, StartRollout{}); !errors.Is(err, ErrRollout) {
		t.Errorf("a second one beside it: %v", err)
	}
	e.ends(rollout.Done)
	close(stop)
	<-watched
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("three soaks of 300 ms in %v", took)
	}
	e.runs(texts)
	old, err := os.ReadFile(e.file("sin") + ".last-good")
	if err != nil || string(old) != e.texts["sin"] {
		t.Errorf("last good: %v\n%s", err, old)
	}
}

// The new config is valid, and its pool has no backend that answers: the first
// PoP is de-preferred for it, and gets its old config back. No other ever sees
// the new one.
func TestBadRolloutReturnsByItself(t *testing.T) {
	e := newEdge(t, "fra", "iad", "sin")
	texts := e.changed("timeout: 5s", "timeout: 6s")
	dead := freeAddress(t).String()
	for p, text := range texts {
		cfg := e.nodes[p].conf.config()
		texts[p] = strings.Replace(text, cfg.Pools[0].Backends[0].Address.String(), dead, 1)
	}
	var later []<-chan struct{}
	for _, p := range e.pops[1:] {
		_, changed := e.nodes[p].conf.watch()
		later = append(later, changed)
	}
	e.roll(texts, 3*time.Second)
	r := e.ends(rollout.Failed)
	if !strings.Contains(r.Reason, "fra-1: not announced any more on the new config: remote trouble: pool api") || r.Turn != 0 {
		t.Errorf("failed in turn %d: %s", r.Turn, r.Reason)
	}
	e.runs(e.texts)
	for i, changed := range later {
		select {
		case <-changed:
			t.Errorf("%s had another config", e.pops[i+1])
		default:
		}
	}
	e.serves("fra")

	// The next one may well succeed.
	good := e.changed("timeout: 5s", "timeout: 6s")
	e.roll(good, 100*time.Millisecond)
	if r := e.ends(rollout.Done); r.Generation != 2 {
		t.Errorf("generation %d", r.Generation)
	}
	e.runs(good)
}

func TestRefusedConfigEndsTheRollout(t *testing.T) {
	e := newEdge(t, "fra", "iad")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	texts := e.changed("listeners: [", `listeners: [{name: more, address: "`+taken.Addr().String()+`", clear: true}, `)
	e.roll(texts, time.Second)
	if r := e.ends(rollout.Failed); !strings.Contains(r.Reason, "fra-1: refused: listener more: ") {
		t.Errorf("failed: %s", r.Reason)
	}
	e.runs(e.texts)
}

// An agent that ends while its config soaks turns the rollout back, and comes up
// with the config it had before, although its file has the new one.
func TestAgentThatEndsInTheSoak(t *testing.T) {
	e := newEdge(t, "fra", "iad", "sin")
	texts := e.changed("timeout: 5s", "timeout: 6s")
	e.roll(texts, time.Hour)
	e.await("fra has the new config", func() error {
		if there, err := os.ReadFile(e.file("fra")); err != nil || string(there) != texts["fra"] {
			return fmt.Errorf("not yet: %v", err)
		}
		return nil
	})
	e.await("iad has seen it", func() error {
		if r, ok := e.nodes["iad"].fleet.View().Report("fra-1"); !ok || r.Rollout == nil || r.Rollout.Taken != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	e.nodes["fra"].stop()
	if r := e.ends(rollout.Failed); !strings.HasPrefix(r.Reason, "fra-1: ") {
		t.Errorf("failed: %s", r.Reason)
	}
	if there, _ := os.ReadFile(e.file("fra")); string(there) != texts["fra"] {
		t.Fatal("the file has changed without an agent")
	}
	e.start("fra")
	e.serves("fra")
	e.runs(e.texts)
}

// Without the store a rollout stands still, however long; with it, it goes on.
func TestRolloutStandsStillWithoutTheStore(t *testing.T) {
	e := newEdge(t, "fra", "iad")
	texts := e.changed("timeout: 5s", "timeout: 6s")
	e.roll(texts, 1500*time.Millisecond)
	e.await("fra has the new config", func() error {
		if e.nodes["fra"].conf.config().Routes[0].Timeout.Std() != 6*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	e.store.sever(true)
	_, changed := e.nodes["iad"].conf.watch()
	_, back := e.nodes["fra"].conf.watch()
	select {
	case <-changed:
		t.Error("iad moved on without the store")
	case <-back:
		t.Error("fra went back without the store")
	case <-time.After(3 * time.Second): // twice the soak
	}
	e.store.sever(false)
	e.ends(rollout.Done)
	e.runs(texts)
}

func TestPauseAndAbort(t *testing.T) {
	e := newEdge(t, "fra", "iad")
	texts := e.changed("timeout: 5s", "timeout: 6s")
	a := e.nodes["iad"]
	if err := a.AbortRollout(t.Context(), kim); !errors.Is(err, ErrRollout) || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("aborted nothing: %v", err)
	}
	e.roll(texts, 300*time.Millisecond)
	if err := a.PauseRollout(t.Context(), kim); err != nil {
		t.Fatal(err)
	}
	_, changed := e.nodes["iad"].conf.watch()
	select {
	case <-changed:
		t.Error("iad moved on in a pause")
	case <-time.After(time.Second):
	}
	if err := a.ResumeRollout(t.Context(), kim); err != nil {
		t.Fatal(err)
	}
	e.await("fra has the new config", func() error {
		if e.nodes["fra"].conf.config().Routes[0].Timeout.Std() != 6*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	if err := a.AbortRollout(t.Context(), kim); err != nil {
		t.Fatal(err)
	}
	if r := e.ends(rollout.Aborted); r.Reason != "aborted by kim" {
		t.Errorf("reason %q", r.Reason)
	}
	e.runs(e.texts)
}

func TestWhatIsNotRolledOut(t *testing.T) {
	e := newEdge(t, "fra", "iad")
	a, ctx := e.nodes["fra"], t.Context()
	for want, text := range map[string]string{
		"pools: required":     "node: {name: fra-1, pop: fra}\nfleet: {memory: true}\nlisteners: [{name: a, address: \"127.0.0.1:1\", clear: true}]\nroutes: [{pool: x}]\n",
		"more than":           e.texts["fra"] + strings.Repeat("#", fleet.MaxValue),
		"holds a private key": e.texts["fra"] + "# -----BEGIN EC PRIVATE KEY-----\n",
	} {
		if _, err := a.PutConfig(ctx, []byte(text)); !errors.Is(err, ErrRollout) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	put := func(text string) string {
		sum, err := a.PutConfig(ctx, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	fra, iad := put(e.texts["fra"]), put(e.texts["iad"])
	restart := put(strings.Replace(e.texts["iad"], "fall: 3", "fall: 4", 1) + "log: {level: debug}\n")
	for want, req := range map[string]StartRollout{
		"steps: none":                   {},
		"there is no document":          {Documents: []string{strings.Repeat("0", 64)}},
		"node sin-1 is not heard of":    {Documents: []string{put(strings.Replace(e.texts["fra"], "name: fra-1, pop: fra", "name: sin-1, pop: sin", 1))}},
		"fra-1 is in PoP fra, not lhr":  {Documents: []string{put(strings.Replace(e.texts["fra"], "pop: fra", "pop: lhr", 1))}},
		"order: PoP iad is missing":     {Documents: []string{fra, iad}, Order: []string{"fra"}},
		"order: no config is for PoP x": {Documents: []string{fra}, Order: []string{"x"}},
		"fra-1 again":                   {Documents: []string{fra, fra}},
		"soak:":                         {Documents: []string{fra}, Soak: configs.Duration(time.Millisecond)},
		"iad-1 needs a restart to take the change of health, log.level": {Documents: []string{fra, restart}},
	} {
		if err := a.StartRollout(ctx, kim, req); !errors.Is(err, ErrRollout) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if a.Rollout().Rollout != nil {
		t.Fatal("a rollout that was refused has begun")
	}
	// Started by force, it stops at the node that would have to be restarted.
	if err := a.StartRollout(ctx, kim, StartRollout{Documents: []string{fra, restart}, Soak: configs.Duration(100 * time.Millisecond), Force: true}); err != nil {
		t.Fatal(err)
	}
	if r := e.ends(rollout.Failed); !strings.Contains(r.Reason, "iad-1: refused: health changed: that needs a restart") {
		t.Errorf("reason %q", r.Reason)
	}
	e.runs(e.texts)
}
