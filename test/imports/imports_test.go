// Package imports holds the import policy of the module as a test: who may
// import whom, and why not. It looks at the real import graph, so a new edge
// that the policy does not name fails here first.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// allowed lists, for every package of the module, the packages of the module
// that its non-test code may import. Leaves have an empty list.
var allowed = map[string][]string{
	".":            {"internal/cli"},
	"internal/cli": {"bgp", "bgp/bfd", "configs", "gslb", "gslb/dnssec", "internal/audit", "internal/daemon", "internal/fleet", "internal/health", "internal/lab", "internal/ops", "origin/demo", "pop", "pop/headroom", "pop/link", "pop/preflight", "pop/proxy", "pop/rollout", "pop/vrrp"},
	"internal/lab": {"bgp", "configs", "gslb", "gslb/steer", "internal/daemon", "internal/fleet", "internal/ops", "pop"},

	// The agent is where everything about a node meets; the data path does not
	// know it. Of the DNS it knows one thing: how round-trip times are gathered,
	// which it does and the DNS nodes read.
	"pop":                {"bgp", "bgp/bfd", "configs", "gslb/steer/rtt", "internal/audit", "internal/daemon", "internal/fleet", "internal/health", "internal/tickets", "origin", "pop/guard", "pop/headroom", "pop/link", "pop/preflight", "pop/proxy", "pop/rollout", "pop/termination", "pop/vrrp"},
	"pop/guard":          {"pop/headroom"},
	"pop/headroom":       {},
	"pop/link":           {},
	"pop/preflight":      {},
	"pop/rollout":        {},
	"pop/termination":    {"internal/tickets"},
	"pop/proxy":          {"configs", "internal/health", "internal/tickets", "origin", "pop/headroom", "pop/link", "pop/proxy/buffers", "pop/proxy/exchange", "pop/proxy/heap", "pop/proxy/http1", "pop/proxy/http2", "pop/proxy/http3", "pop/proxy/tcp", "pop/termination"},
	"pop/proxy/buffers":  {},
	"pop/proxy/exchange": {},
	"pop/proxy/heap":     {},
	"pop/proxy/http1":    {"pop/proxy/buffers", "pop/proxy/exchange", "pop/proxy/tcp"},
	"pop/proxy/http2":    {"pop/proxy/buffers", "pop/proxy/exchange"},
	"pop/proxy/http3":    {"pop/proxy/buffers", "pop/proxy/exchange"},
	"pop/proxy/tcp":      {},
	"pop/vrrp":           {},

	"bgp":        {"bgp/bfd", "bgp/shield"},
	"bgp/bfd":    {},
	"bgp/shield": {},

	"gslb": {"configs", "gslb/dnssec", "gslb/geo", "gslb/steer", "gslb/steer/assign", "gslb/steer/planner", "gslb/steer/rtt", "gslb/xdp", "internal/audit", "internal/cidr", "internal/daemon", "internal/fleet"},
	// The node in it puts the pure parts of steering together.
	"gslb/dnssec": {"internal/secret"},
	"gslb/geo":    {"gslb/steer", "internal/cidr"},
	"gslb/steer":  {"internal/cidr"},
	"gslb/xdp":    {"gslb/steer"}, // knows decisions, but neither views nor zones
	// What is decided off the query path; the table takes what comes of it.
	"gslb/steer/assign":  {"internal/cidr"},
	"gslb/steer/planner": {"gslb/steer", "gslb/steer/assign", "gslb/steer/rtt", "internal/cidr"},
	"gslb/steer/rtt":     {"internal/cidr"},
	"gslb/steer/world":   {"gslb/steer/assign", "internal/cidr"},

	"origin":      {"internal/health"},
	"origin/demo": {},

	"configs":                    {},
	"configs/internal/schemagen": {},
	"internal/audit":             {},
	"internal/cidr":              {},
	"internal/daemon":            {},
	"internal/fleet":             {},
	"internal/fleet/consultest":  {},
	"internal/fleet/fleettest":   {"internal/fleet"},
	"internal/health":            {},
	"internal/ops":               {},
	"internal/secret":            {},
	"internal/tickets":           {"internal/secret"},
}

// owners names the one package tree that may import each big library.
var owners = []struct {
	library, owner, why string
}{
	{"github.com/osrg/gobgp/", "bgp", "the speaker hides GoBGP, so that its API and its weaknesses end at one wall"},
	{"github.com/miekg/dns", "gslb", "steering must stay free of a wire library"},
	{"github.com/oschwald/maxminddb-golang/", "gslb/geo", "the rest sees networks with a place, whatever file they are from"},
	{"github.com/cilium/ebpf", "gslb/xdp", "programs in the kernel are an option: all else runs without"},
	{"github.com/hashicorp/consul/", "internal/fleet", "everything else sees the Store"},
	{"go.yaml.in/yaml/", "configs", "all config goes through the strict decoder"},
	{"github.com/quic-go/", "pop/proxy/http3", "the codec hides QUIC, as the others hide their wire"},
	{"google.golang.org/grpc", "origin/demo", "only the demo origin speaks gRPC itself"},
}

// pure lists packages that do no I/O, with what they must not import.
var pure = map[string][]string{
	"gslb/geo":           {"net", "net/http", "os", "log/slog"},
	"gslb/dnssec":        {"net", "net/http", "os"},
	"gslb/steer":         {"net", "net/http", "os", "log/slog"},
	"gslb/steer/assign":  {"net", "net/http", "os", "log/slog"},
	"gslb/steer/planner": {"net", "net/http", "os", "log/slog"},
	"gslb/steer/rtt":     {"net", "net/http", "os", "log/slog"},
	"gslb/steer/world":   {"net", "net/http", "os", "log/slog"},
	"internal/health":    {"net", "net/http", "os", "log/slog"},
	"internal/tickets":   {"net", "net/http", "os"},
	"pop/guard":          {"net", "net/http", "os", "log/slog"},
	"pop/headroom":       {"net", "net/http", "os", "log/slog"},
	"pop/rollout":        {"net", "net/http", "os", "log/slog"},
	"pop/preflight":      {"net", "net/http", "os", "log/slog"},
	"pop/proxy/exchange": {"net/http", "os"},
}

// noNetHTTP are the packages of the data path. They have codecs of their own:
// net/http costs several times as much, and hides what a proxy has to see.
var noNetHTTP = []string{"pop/proxy", "pop/proxy/buffers", "pop/proxy/exchange", "pop/proxy/heap", "pop/proxy/http1", "pop/proxy/http2", "pop/proxy/http3", "pop/proxy/tcp", "pop/termination"}

type pkg struct {
	ImportPath string
	Imports    []string
}

const module = "anyedge"

// packages returns the module's packages by their path inside it.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string]pkg)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[inside(p.ImportPath)] = p
	}
}

func inside(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

func TestImportsOfOurOwn(t *testing.T) {
	for name, p := range packages(t) {
		if strings.HasPrefix(name, "test/") {
			continue // tests may look at everything
		}
		list, known := allowed[name]
		if !known {
			t.Errorf("%s: not in the policy; add it with what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module+"/") {
				continue
			}
			if !slices.Contains(list, inside(imp)) {
				t.Errorf("%s imports %s, which the policy does not allow", name, inside(imp))
			}
		}
	}
}

func TestEachBigLibraryHasOneImporter(t *testing.T) {
	for name, p := range packages(t) {
		for _, imp := range p.Imports {
			for _, o := range owners {
				under := name == o.owner || strings.HasPrefix(name, o.owner+"/")
				if strings.HasPrefix(imp, o.library) && !under {
					t.Errorf("%s imports %s; only %s may: %s", name, imp, o.owner, o.why)
				}
			}
		}
	}
}

func TestPureCoresDoNoIO(t *testing.T) {
	all := packages(t)
	for name, banned := range pure {
		for _, imp := range all[name].Imports {
			if slices.Contains(banned, imp) {
				t.Errorf("%s imports %s; it is a pure core", name, imp)
			}
		}
	}
}

func TestDataPathDoesWithoutNetHTTP(t *testing.T) {
	all := packages(t)
	for _, name := range noNetHTTP {
		for _, imp := range all[name].Imports {
			if imp == "net/http" || path.Dir(imp) == "net/http" {
				t.Errorf("%s imports %s; the data path has codecs of its own", name, imp)
			}
		}
	}
}

// The policy itself must not rot: every package it names exists.
func TestPolicyNamesOnlyWhatExists(t *testing.T) {
	all := packages(t)
	for name := range allowed {
		if _, ok := all[name]; !ok {
			t.Errorf("the policy names %s, which does not exist", name)
		}
	}
}
