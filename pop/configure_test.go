package pop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/pop/proxy"
)

// recorder is an [applier] that answers as told.
type recorder struct {
	err     error
	applied []proxy.Apply // that it was asked to, refused ones included
	sockets *sockets
}

func (r *recorder) apply(_ context.Context, a proxy.Apply, set *sockets) error {
	r.applied = append(r.applied, a)
	if r.err == nil {
		r.sockets = set
	}
	return r.err
}

func (r *recorder) last() proxy.Apply { return r.applied[len(r.applied)-1] }

// desk is a configurator on real sockets.
type desk struct {
	*configurator
	worker *recorder
	taken  []*configs.Pop // told of by adopted
}

// newDesk starts one with listeners "web" and "alt"; it returns their
// addresses too, for use in a new config.
func newDesk(t *testing.T) (*desk, []string) {
	t.Helper()
	addresses := []string{"127.0.0.1:8080", freeAddress(t).String(), "127.0.0.1:8081", freeAddress(t).String()}
	d := &desk{worker: new(recorder)}
	d.configurator = newConfigurator("pop.yaml", parse(t, testConfig, addresses...), d.worker, quiet, newMetrics(nil))
	d.adopted = func(_ context.Context, cfg *configs.Pop, _ neighbors) { d.taken = append(d.taken, cfg) }
	if err := d.start(t.Context(), fleetInputs{inventories: inventories{}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.stop)
	return d, addresses
}

// unchanged runs f and fails if anything but the status changed.
func (d *desk) unchanged(t *testing.T, f func()) {
	t.Helper()
	cfg, changed := d.watch()
	sent, open, set, files, good := len(d.worker.applied), openSockets(t), d.sockets, d.files, d.good
	f()
	now, _ := d.watch()
	select {
	case <-changed:
		t.Error("watchers were told of a change")
	default:
	}
	if now != cfg || d.sockets != set || d.files != files || !reflect.DeepEqual(d.good, good) || len(d.taken) != 0 {
		t.Error("something changed")
	}
	if got := openSockets(t); got != open {
		t.Errorf("%d sockets open, %d before", got, open)
	}
	if d.worker.err == nil && len(d.worker.applied) != sent {
		t.Error("the worker was bothered")
	}
}

func TestBadConfigChangesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		replace []string
		refuse  error // the worker's
		want    string
	}{
		"needs a restart":   {[]string{"asn: 64512", "asn: 64513"}, nil, "bgp.asn changed"},
		"missing file":      {[]string{"backends: [{", "tls: {ca_file: /nonexistent/ca.pem, server_name: api}, backends: [{"}, nil, "pools[0].tls.ca_file"},
		"refused by worker": {[]string{"  - {name: alt", "  - {name: more, clear: true, address: \"FREE\"}\n  - {name: alt"}, &refusedError{"no"}, "no"},
		"address is taken":  {[]string{"name: alt, address: \"127.0.0.1:8081\"", "name: alt, address: \"TAKEN\""}, nil, "listener alt: "},
	} {
		t.Run(name, func(t *testing.T) {
			d, addresses := newDesk(t)
			text := strings.NewReplacer(tc.replace...).Replace(testConfig)
			text = strings.NewReplacer("FREE", freeAddress(t).String(), "TAKEN", taken(t).String()).Replace(text)
			next := parse(t, text, addresses...)
			d.unchanged(t, func() {
				d.worker.err = tc.refuse
				err := d.reload(t.Context(), next, fleetInputs{inventories: inventories{"api": {}}})
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("%v, want it to say %q", err, tc.want)
				}
				if s := d.status.Load(); s.LastError != err.Error() || s.FailedAt.IsZero() || s.Generation != 1 {
					t.Errorf("status %+v", s)
				}
			})
			d.worker.err = nil
			if err := d.reload(t.Context(), parse(t, testConfig, addresses...), fleetInputs{}); err != nil {
				t.Fatal(err)
			}
			if s := d.status.Load(); s.LastError != "" || !s.FailedAt.IsZero() {
				t.Errorf("status after a good reload %+v", s)
			}
		})
	}
}

func TestUnreadableConfigIsReported(t *testing.T) {
	d, _ := newDesk(t)
	d.unchanged(t, func() { d.refused(errors.New("pop.yaml:1:1: nonsense")) })
	if got := d.status.Load().LastError; got != "pop.yaml:1:1: nonsense" {
		t.Errorf("last error %q", got)
	}
}

func TestReloadSwapsSocketsInventoryAndConfigTogether(t *testing.T) {
	d, addresses := newDesk(t)
	web, alt, more := d.cfg.Listeners[0], d.cfg.Listeners[1], freeAddress(t)
	before := openSockets(t)
	_, changed := d.watch()
	next := parse(t, strings.NewReplacer(
		"name: alt", "name: more", "127.0.0.1:8081", more.String(),
		`backends: [{address: "127.0.0.1:9000"}]`, "inventory: api",
	).Replace(testConfig), addresses...)
	backend := fleet.Backend{Address: freeAddress(t), Weight: 1}
	if err := d.reload(t.Context(), next, fleetInputs{inventories: inventories{"api": {backend}}}); err != nil {
		t.Fatal(err)
	}
	if !connects(web.Address) || !connects(more) || connects(alt.Address) {
		t.Error("web and more should accept, alt not")
	}
	if got := openSockets(t); got != before {
		t.Errorf("%d sockets open, %d before", got, before)
	}
	// The first snapshot of the new config has the backends that it asks for.
	if s := d.worker.last().Snapshot; len(s.Pools[0].Backends) != 1 || s.Pools[0].Backends[0].Address != backend.Address {
		t.Errorf("pools %+v", s.Pools)
	}
	select {
	case <-changed:
	default:
		t.Error("watchers were not told")
	}
	if d.config() != next || len(d.taken) != 1 || d.taken[0] != next {
		t.Error("the new config is not in force")
	}
}

func TestStartThatFailsLeavesNoSocket(t *testing.T) {
	before := openSockets(t)
	d := &desk{worker: &recorder{err: &refusedError{"no"}}}
	cfg := parse(t, testConfig, "127.0.0.1:8080", freeAddress(t).String(), "127.0.0.1:8081", freeAddress(t).String())
	d.configurator = newConfigurator("pop.yaml", cfg, d.worker, quiet, newMetrics(nil))
	if err := d.start(t.Context(), fleetInputs{}); err == nil {
		t.Error("started")
	}
	d.stop()
	if got := openSockets(t); got != before {
		t.Errorf("%d sockets open, %d before", got, before)
	}
}

func TestRestartNeeded(t *testing.T) {
	old := parse(t, testConfig)
	for name, tc := range map[string]struct {
		replace []string
		want    string // keys, in order; empty: can be taken at once
	}{
		"nothing":        {nil, ""},
		"listener":       {[]string{"127.0.0.1:8080", "127.0.0.1:8090"}, ""},
		"prefix":         {[]string{"192.0.2.0/24", "198.51.100.0/24"}, ""},
		"shape":          {[]string{"router_id", "announce: {med: 7}\n  router_id"}, ""},
		"drain":          {[]string{"bgp:", "drain: {deprefer: 1s}\nbgp:"}, ""},
		"worker":         {[]string{"bgp:", "worker: {crash_limit: 9, drain_timeout: 1s}\nbgp:"}, ""},
		"log.requests":   {[]string{"bgp:", "log: {requests: true}\nbgp:"}, ""},
		"node":           {[]string{"fra-1", "fra-2"}, "node"},
		"fleet":          {[]string{"memory: true", "memory: true, report_ttl: 9s"}, "fleet"},
		"admin":          {[]string{"bgp:", "admin: {address: \"127.0.0.1:9999\"}\nbgp:"}, "admin"},
		"neighbor":       {[]string{"10.0.1.254", "10.0.1.253"}, ""},
		"hold time":      {[]string{"router_id", "hold_time: 30s\n  router_id"}, ""},
		"router ID":      {[]string{"router_id: 10.0.1.1", "router_id: 10.0.1.2"}, "bgp.router_id"},
		"no bgp":         {[]string{testConfig[strings.Index(testConfig, "bgp:"):], ""}, "bgp"},
		"judge":          {[]string{"bgp:", "health: {hold_down: 30s}\nbgp:"}, "health"},
		"guard":          {[]string{"bgp:", "guard: {min_pops: 2}\nbgp:"}, "guard"},
		"tickets":        {[]string{"bgp:", "tls: {tickets: {rotate: 2h}}\nbgp:"}, "tls.tickets"},
		"log":            {[]string{"bgp:", "log: {level: debug, format: json}\nbgp:"}, "log.format log.level"},
		"several at one": {[]string{"fra-1", "fra-2", "asn: 64512", "asn: 64513"}, "bgp.asn node"},
	} {
		t.Run(name, func(t *testing.T) {
			err := configs.RestartNeeded(old, parse(t, testConfig, tc.replace...))
			var keys []string
			if err != nil {
				for line := range strings.Lines(err.Error()) {
					key, _, _ := strings.Cut(line, " changed: ")
					keys = append(keys, key)
				}
			}
			if got := strings.Join(keys, " "); got != tc.want {
				t.Errorf("needs a restart for %q, want %q", got, tc.want)
			}
		})
	}
}

func TestUpdateSendsOnlyWhatChanged(t *testing.T) {
	d, _ := newDesk(t)
	send := func(in fleetInputs, want int) {
		t.Helper()
		before := len(d.worker.applied)
		d.update(t.Context(), in)
		if got := len(d.worker.applied) - before; got != want {
			t.Errorf("sent %d times, want %d", got, want)
		}
	}
	set := func(port uint16) fleetInputs {
		return fleetInputs{inventories: inventories{"api": {{Address: freeAddress(t), Weight: int(port)}}}}
	}
	one, two := set(1), set(2)
	send(fleetInputs{inventories: inventories{}}, 0)
	send(one, 1)
	send(one, 0)

	// What was refused is not tried again until something changes, and the
	// good state is remembered.
	d.worker.err = &refusedError{"no"}
	send(two, 1)
	send(two, 0)
	if s := d.status.Load(); s.LastError != "from the fleet: no" || s.Generation != 2 {
		t.Errorf("status %+v", s)
	}
	d.worker.err = nil
	send(one, 0) // is in force all along
	send(two, 0)
	if err := d.reload(t.Context(), d.config(), d.good); err != nil {
		t.Fatal(err)
	}
	send(two, 1) // another config may go with it

	// What got no answer is tried again.
	d.worker.err = errors.New("worker did not answer")
	send(one, 1)
	send(one, 1)
	d.worker.err = nil
	send(one, 1)
	send(one, 0)
	if s := d.status.Load(); s.LastError != "" || s.Generation != d.worker.last().Snapshot.Generation {
		t.Errorf("status %+v", s)
	}
}

func TestGenerationsAreNeverUsedTwice(t *testing.T) {
	d, _ := newDesk(t)
	for i := range 6 {
		d.worker.err = nil
		if i%2 == 0 {
			d.worker.err = &refusedError{"no"}
		}
		d.reload(t.Context(), d.config(), fleetInputs{})
	}
	for i, a := range d.worker.applied {
		if want := uint64(i + 1); a.Snapshot.Generation != want {
			t.Errorf("snapshot %d has generation %d", want, a.Snapshot.Generation)
		}
		if a.Snapshot.ProbeToken != d.token || len(d.token) != 32 {
			t.Errorf("probe token %q", a.Snapshot.ProbeToken)
		}
	}
}

func TestDrainIsAskedForUntilTaken(t *testing.T) {
	d, _ := newDesk(t)
	d.setDraining(t.Context(), false)
	if len(d.worker.applied) != 1 {
		t.Error("asked not to drain a worker that does not")
	}
	d.worker.err = errors.New("worker did not answer")
	d.setDraining(t.Context(), true)
	d.worker.err = nil
	d.update(t.Context(), fleetInputs{inventories: inventories{"web": {}}}) // what else changes meanwhile does not drain
	if d.worker.last().Draining {
		t.Error("drains although the wish failed")
	}
	for range 2 {
		d.setDraining(t.Context(), true)
	}
	if got := len(d.worker.applied); got != 4 || !d.worker.last().Draining {
		t.Errorf("asked %d times in all, draining %v", got, d.worker.last().Draining)
	}
	d.update(t.Context(), fleetInputs{inventories: inventories{"api": {}}})
	if !d.worker.last().Draining {
		t.Error("an update ended the drain")
	}
}

func TestSnapshotCarriesFilesAndBackends(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte("pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := parse(t, testConfig,
		"pools: [{", "pools: [{name: inv, inventory: set}, {",
		"backends: [{", "tls: {ca_file: "+ca+", server_name: api}, backends: [{")
	files, err := readMaterial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	inv := inventories{"inv": {{Address: freeAddress(t), Weight: 3, Zone: "b"}}, "gone": {{}}}
	s := buildSnapshot(cfg, files, inv, nil)
	if len(s.Pools) != 2 || string(s.Pools[1].CA) != "pem" || s.Pools[0].CA != nil {
		t.Fatalf("pools %+v", s.Pools)
	}
	if b := s.Pools[0].Backends; len(b) != 1 || b[0].Weight != 3 || b[0].Zone != "b" {
		t.Errorf("inventory became %+v", b)
	}
	if b := s.Pools[1].Backends; len(b) != 1 || b[0].Address.String() != "127.0.0.1:9000" {
		t.Errorf("listed backends became %+v", b)
	}
	if b := buildSnapshot(cfg, files, nil, nil).Pools[0].Backends; b == nil || len(b) != 0 {
		t.Errorf("an inventory that is not known is %#v, want empty", b)
	}
}
