package gslb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/gslb/steer"
	"anyedge/internal/fleet"
)

// Networks near each of the test's PoPs, and what the PoPs' addresses are.
var (
	paris = netip.MustParsePrefix("198.51.100.0/24")
	osaka = netip.MustParsePrefix("203.0.113.0/24")
	inFra = "192.0.2.1"
	inNrt = "192.0.2.2"
	quiet = slog.New(slog.DiscardHandler)
)

const nodeZone = `$ORIGIN edge.example.
$TTL 300
@    IN SOA ns1 hostmaster 1 3600 600 86400 60
@    IN NS  ns1
ns1  IN A   192.0.2.53
mail IN A   192.0.2.25
`

// nodeAddress is this process's own, so that two runs of the tests can share a
// machine.
var nodeAddress = fmt.Sprintf("127.210.%d.%d:5310", os.Getpid()>>8&0xff, os.Getpid()&0xff)

var nodeConfig = `
node: {name: ns1}
fleet: {memory: true, report_interval: 1s, report_ttl: 1m}
listen: ["` + nodeAddress + `"]
zones: [{name: edge.example, file: edge.zone}]
clients: clients.csv
pops:
  - {name: fra, latitude: 50, longitude: 9, addresses: [192.0.2.1, "2001:db8::1"]}
  - {name: nrt, latitude: 36, longitude: 140, addresses: [192.0.2.2, "2001:db8::2"]}
names:
  - {name: www.edge.example, policy: nearest, ttl: 5s, answers: [{pop: fra}, {pop: nrt}]}
`

// testNode is a running Node, its folder, and a fleet that tells it things.
type testNode struct {
	*Node
	t       *testing.T
	dir     string
	server  netip.AddrPort
	fleet   *fleet.Fleet
	session fleet.Session
}

// runNode runs a node of the test config over a store until the test ends.
func runNode(t *testing.T, store fleet.Store, sealer *fleet.Sealer) *testNode {
	t.Helper()
	n := newTestNode(t, store, sealer, nodeConfig)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the node did not stop")
		}
	})
	select {
	case <-n.Node.server.Ready():
	case err := <-ended:
		t.Fatalf("run: %v", err)
	}
	n.server = n.Status().Listen[0]
	return n
}

// newTestNode makes a node of a config that does not run yet.
func newTestNode(t *testing.T, store fleet.Store, sealer *fleet.Sealer, config string) *testNode {
	t.Helper()
	n := &testNode{t: t, dir: t.TempDir()}
	n.write("edge.zone", nodeZone)
	n.write("gslb.yaml", config)
	n.write("clients.csv", "198.51.100.0/24,48.9,2.4\n203.0.113.0/24,34.7,135.5\n")
	file := filepath.Join(n.dir, "gslb.yaml")
	cfg, err := configs.LoadGSLB(file)
	if err != nil {
		t.Fatal(err)
	}
	n.Node, err = NewNode(NodeOptions{File: file, Config: cfg, Store: store, Sealer: sealer, Log: quiet, StateDir: filepath.Join(n.dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	n.fleet, err = fleet.New(fleet.Config{Store: store, Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	if n.session, err = store.NewSession(t.Context(), "test", time.Minute); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *testNode) write(file, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, file), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// report writes the report of the only node of a PoP.
func (n *testNode) report(pop, state, announcement string) {
	n.t.Helper()
	r := fleet.Report{Node: pop + "-1", Pop: pop, Region: "world", State: state, Announcement: announcement}
	if err := n.fleet.PutReport(n.t.Context(), n.session, r); err != nil {
		n.t.Fatal(err)
	}
}

// answer is the addresses that a client network gets for a name, or the error.
func (n *testNode) answer(name string, client netip.Prefix) string {
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Second)
	defer cancel()
	a, err := Lookup(ctx, n.server, name, steer.IPv4, client)
	if err != nil {
		return err.Error()
	}
	var words []string
	for _, addr := range a.Addresses {
		words = append(words, addr.String())
	}
	return strings.Join(words, " ")
}

// becomes waits until www leads a client network to an address.
func (n *testNode) becomes(what string, client netip.Prefix, want string) {
	n.t.Helper()
	n.await(what, func() bool { return n.answer("www.edge.example", client) == want })
}

func (n *testNode) await(what string, holds func() bool) {
	n.t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("%s: not within 10 s; Paris gets %s, Osaka %s", what, n.answer("www.edge.example", paris), n.answer("www.edge.example", osaka))
		}
	}
}

// popStates is how the table in force has the PoPs, in the order of the config.
func (n *testNode) popStates() string {
	var words []string
	for _, p := range n.Status().Pops {
		words = append(words, p.State)
	}
	return strings.Join(words, " ")
}

func TestNodeFollowsTheFleet(t *testing.T) {
	n := runNode(t, fleet.NewMemory(), nil)
	ctx := t.Context()
	n.report("fra", fleet.StateHealthy, fleet.Announced)
	n.report("nrt", fleet.StateHealthy, fleet.Announced)
	n.await("both are up", func() bool { return n.popStates() == "up up" })
	n.becomes("nearest", paris, inFra)
	n.becomes("nearest", osaka, inNrt)

	if err := n.fleet.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}); err != nil {
		t.Fatal(err)
	}
	n.becomes("a drain moves clients away", paris, inNrt)
	if err := n.fleet.ClearDrain(ctx, fleet.ScopePop, "fra"); err != nil {
		t.Fatal(err)
	}
	n.becomes("its end brings them back", paris, inFra)

	n.report("nrt", fleet.StateUnhealthy, fleet.Withdrawn)
	n.becomes("an unhealthy PoP gets nobody", osaka, inFra)
	n.report("nrt", fleet.StateHealthy, fleet.Announced)
	n.becomes("a cured one gets them again", osaka, inNrt)
	n.report("nrt", fleet.StateHealthy, fleet.Depreferred)
	n.becomes("one that asks for less gets nobody while another is up", osaka, inFra)
}

func TestNodeForgetsSilentNodes(t *testing.T) {
	n := runNode(t, fleet.NewMemory(), nil)
	n.report("fra", fleet.StateHealthy, fleet.Announced)
	n.await("fra is up", func() bool { return n.popStates() == "up unknown" })
	// The node itself may still be at work on the report, in its own time.
	n.await("two minutes of silence show", func() bool {
		if err := n.steer(time.Now().Add(2*time.Minute), false); err != nil {
			t.Fatal(err)
		}
		return n.popStates() == "unknown unknown"
	})
}

// cutStore is a store that can be out of reach.
type cutStore struct {
	fleet.Store
	gone atomic.Bool
}

var errGone = errors.New("out of reach")

func (s *cutStore) Get(ctx context.Context, key string) (fleet.Entry, error) {
	if s.gone.Load() {
		return fleet.Entry{}, errGone
	}
	return s.Store.Get(ctx, key)
}

func TestNodeKeepsItsAnswersWithoutTheStore(t *testing.T) {
	sealer, err := fleet.ParseKeys([]byte(strings.Repeat("5a", 32) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	store := &cutStore{Store: fleet.NewMemory()}
	n := runNode(t, store, sealer)
	n.report("fra", fleet.StateUnhealthy, fleet.Withdrawn)
	n.report("nrt", fleet.StateHealthy, fleet.Announced)
	n.await("the reports arrive", func() bool { return n.popStates() == "down up" })
	n.await("the node is connected", n.Connected)
	store.gone.Store(true)
	n.await("the loss shows", func() bool { return !n.Connected() })
	if err := n.steer(time.Now().Add(time.Hour), true); err != nil {
		t.Fatal(err)
	}
	if got := n.popStates(); got != "down up" {
		t.Errorf("an hour without the store: %s, want down up as before", got)
	}
	n.becomes("without the store", paris, inNrt)
}

// The reference database has Paris and Osaka in France and Japan; the map of
// clients goes before it.
func TestNodeReadsGeo(t *testing.T) {
	n := runNode(t, fleet.NewMemory(), nil)
	copied := func(db []byte) { n.write("places.mmdb", string(db)) }
	db, err := os.ReadFile("../configs/reference/places.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	copied(db)
	n.write("zone.tab", "FR\t+4852+00220\tEurope/Paris\nJP\t+353916+1394441\tAsia/Tokyo\n")
	withGeo := strings.Replace(nodeConfig, "clients: clients.csv", "geo: {file: places.mmdb, points: zone.tab}", 1)
	n.write("gslb.yaml", withGeo)
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := n.answer("www.edge.example", paris), n.answer("www.edge.example", osaka); a != inFra || b != inNrt {
		t.Errorf("Paris gets %s, Osaka %s", a, b)
	}
	for what, damage := range map[string]func(){
		"geo: ":                       func() { copied(db[:len(db)/2]) },
		"geo: " + n.dir + "/zone.tab": func() { copied(db); n.write("zone.tab", "FR\n") },
		"geo: points: ":               func() { copied(db); os.Remove(filepath.Join(n.dir, "zone.tab")) },
	} {
		damage()
		if err := n.Reload(t.Context()); err == nil || !strings.HasPrefix(err.Error(), what) {
			t.Errorf("error %v, want %s", err, what)
		}
		if a, b := n.answer("www.edge.example", paris), n.answer("www.edge.example", osaka); a != inFra || b != inNrt {
			t.Errorf("after bad files: Paris gets %s, Osaka %s", a, b)
		}
		n.write("zone.tab", "FR\t+4852+00220\tEurope/Paris\nJP\t+353916+1394441\tAsia/Tokyo\n")
	}
	copied(db)
	n.write("clients.csv", "198.51.100.0/24,34.7,135.5\n")
	n.write("gslb.yaml", withGeo+"clients: clients.csv\n")
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b := n.answer("www.edge.example", paris), n.answer("www.edge.example", osaka); a != inNrt || b != inNrt {
		t.Errorf("with the map of clients before: Paris gets %s, Osaka %s", a, b)
	}
}

func TestReloadTakesAllOrNothing(t *testing.T) {
	n := runNode(t, fleet.NewMemory(), nil)
	n.report("fra", fleet.StateHealthy, fleet.Announced)
	n.report("nrt", fleet.StateHealthy, fleet.Announced)
	n.await("both are up", func() bool { return n.popStates() == "up up" })
	const more = "  - {name: new.edge.example, policy: failover, ttl: 7s, answers: [{pop: nrt}]}\n"

	for _, c := range []struct{ what, file, text, want string }{
		{"a broken zone", "edge.zone", "@ IN SOA what", "edge.zone"},
		{"a zone without its apex", "edge.zone", "mail.edge.example. 60 IN A 192.0.2.25\n", "SOA"},
		{"a broken map of clients", "clients.csv", "198.51.100.0/24,91,0\n", "clients.csv:1: latitude"},
		{"no map of clients", "clients.csv", "", "clients"}, // removed below
		{"a broken config", "gslb.yaml", nodeConfig + "nonsense: 1\n", "nonsense"},
		{"another address", "gslb.yaml", strings.Replace(nodeConfig, ":5310", ":5311", 1), "listen changed: that needs a restart"},
		{"another store", "gslb.yaml", strings.Replace(nodeConfig, "report_ttl: 1m", "report_ttl: 2m", 1), "fleet changed: that needs a restart"},
		{"a limit", "gslb.yaml", nodeConfig + "rate_limit: {responses: 5}\n", "rate_limit changed: that needs a restart"},
		{"more log lines", "gslb.yaml", nodeConfig + "log: {level: debug}\n", "log.level changed: that needs a restart"},
		{"cookies of no secret", "gslb.yaml", nodeConfig + "cookie_file: edge.zone\n", "edge.zone:1: not a secret"},
		{"an encrypted transport without certificate", "gslb.yaml", nodeConfig + "encrypted: {dot: [\"127.0.0.1:5311\"], cert_file: no, key_file: no}\n", "encrypted"},
		{"a name over an alias", "edge.zone", nodeZone + "www IN CNAME mail\n", "www.edge.example"},
	} {
		t.Run(c.what, func(t *testing.T) {
			before := map[string]string{"edge.zone": nodeZone, "gslb.yaml": nodeConfig, "clients.csv": "198.51.100.0/24,48.9,2.4\n203.0.113.0/24,34.7,135.5\n"}
			defer n.write(c.file, before[c.file])
			if c.file != "gslb.yaml" { // and a change that alone would be fine
				n.write("gslb.yaml", nodeConfig+more)
				defer n.write("gslb.yaml", nodeConfig)
			}
			n.write(c.file, c.text)
			if c.text == "" {
				os.Remove(filepath.Join(n.dir, c.file))
			}
			if err := n.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
			if got := n.answer("mail.edge.example", paris); got != "192.0.2.25" {
				t.Errorf("mail: %s", got)
			}
			if got := n.answer("www.edge.example", osaka); got != inNrt {
				t.Errorf("www: %s", got)
			}
			if got := n.answer("new.edge.example", paris); !strings.Contains(got, "NXDOMAIN") {
				t.Errorf("half of the refused change is in force: %s", got)
			}
		})
	}

	n.write("gslb.yaml", nodeConfig+more+"nsid: fra-2\ncookie_file: cookies\n")
	n.write("cookies", "00112233445566778899aabbccddeeff\n")
	n.write("edge.zone", nodeZone+"also IN A 192.0.2.77\n")
	n.write("clients.csv", "198.51.100.0/24,34.7,135.5\n") // Paris has moved to Osaka
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"new.edge.example": inNrt, "also.edge.example": "192.0.2.77", "www.edge.example": inNrt} {
		if got := n.answer(name, paris); got != want {
			t.Errorf("%s after a good reload: %s, want %s", name, got, want)
		}
	}
	if v := n.Node.server.view.Load(); string(v.nsid) != "fra-2" || v.cookies[0][1] != 0x11 {
		t.Errorf("identity after a good reload: %q, %v", v.nsid, v.cookies)
	}
	// The fleet is still followed, under the new config.
	n.report("nrt", fleet.StateUnhealthy, fleet.Withdrawn)
	n.becomes("after the reload", paris, inFra)
	n.report("nrt", fleet.StateHealthy, fleet.Announced)
	n.becomes("the new map of clients stays", paris, inNrt)
	if got := n.answer("new.edge.example", paris); got != inNrt {
		t.Errorf("the new name after a change in the fleet: %s", got)
	}
}

// A node that runs is alive, also to a watchdog.
func TestNodeIsAlive(t *testing.T) {
	n := runNode(t, fleet.NewMemory(), nil)
	n.report("fra", fleet.StateHealthy, fleet.Announced)
	n.await("it has followed", func() bool { return n.popStates() == "up unknown" })
	if !n.Node.Alive() || !n.Node.pulse.Within(time.Minute) {
		t.Error("a node that follows the fleet is not alive")
	}
}
