package configs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const smallPop = `
node: {name: fra-1, pop: fra}
fleet: {memory: true}
listeners: [{name: web, address: 192.0.2.1:80, clear: true}]
routes: [{pool: api}]
pools: [{name: api, backends: [{address: 10.1.0.4:8080}]}]
`

func TestDefaults(t *testing.T) {
	p, err := ParsePop("pop.yaml", []byte(smallPop+"bgp: {asn: 64512, router_id: 10.0.0.1, prefixes: [192.0.2.0/24], next_hop: {ipv4: 10.0.0.1}, neighbors: [{address: 10.0.0.2, asn: 64500}]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	pool := p.Pools[0]
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"protocols in clear text", p.Listeners[0].Protocols, []string{"h1"}},
		{"idle timeout", p.Listeners[0].Timeouts.Idle.Std(), 75 * time.Second},
		{"head bound", p.Listeners[0].Limits.HeaderBytes, Size(32 << 10)},
		{"balance", pool.Balance, "round_robin"},
		{"weight", pool.Backends[0].Weight, 1},
		{"warm", *pool.Warm, 1},
		{"check without a path", pool.Health.Type, "tcp"},
		{"check timeout", pool.Health.Timeout.Std(), time.Second},
		{"others that must remain", *p.Guard.MinPops, 1},
		{"share", p.Guard.Share.Fraction(), 0.34},
		{"admin", p.Admin.Address.String(), "127.0.0.1:8600"},
		{"level", p.Log.Level, "info"},
		{"no ceiling of its own", p.Worker.MaxConnections, 0},
		{"hold time", p.BGP.HoldTime.Std(), 9 * time.Second},
		{"port", p.BGP.Neighbors[0].Port, uint16(179)},
		{"deprefer", *p.BGP.Deprefer, RouteShape{MED: 1000, Prepend: 3, Communities: []string{"graceful-shutdown"}}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestDependentDefaults(t *testing.T) {
	p, err := ParsePop("pop.yaml", []byte(`
node: {name: fra-1, pop: fra}
fleet: {memory: true}
listeners: [{name: web, address: "192.0.2.1:443"}]
tls: {certificates: [{cert_file: a.pem, key_file: a.key}]}
routes: [{pool: api}]
pools: [{name: api, inventory: api, warm: 0, health: {path: /healthz, interval: 200ms}}]
guard: {min_pops: 0}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Listeners[0].Protocols; !reflect.DeepEqual(got, []string{"h1", "h2"}) {
		t.Errorf("protocols on TLS: %v", got)
	}
	if h := p.Pools[0].Health; h.Type != "http" || h.Timeout.Std() != 200*time.Millisecond {
		t.Errorf("health: %+v, want http within the interval", h)
	}
	if *p.Pools[0].Warm != 0 || *p.Guard.MinPops != 0 {
		t.Errorf("warm %d, min_pops %d: want the zeros that were written", *p.Pools[0].Warm, *p.Guard.MinPops)
	}
	g, err := ParseGSLB("gslb.yaml", []byte(`{"node":{"name":"ns"},"fleet":{"memory":true},"listen":["[::1]:53"],"zones":[{"name":"a","file":"a"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Admin.Address.String(); got != "127.0.0.1:8601" {
		t.Errorf("admin of a DNS node: %s", got)
	}
}

func TestCompleteInCode(t *testing.T) {
	p, err := ParsePop("pop.yaml", []byte(smallPop))
	if err != nil {
		t.Fatal(err)
	}
	built := &Pop{
		Node:      Node{Name: "fra-1", Pop: "fra"},
		Fleet:     Fleet{Memory: true},
		Listeners: []Listener{{Name: "web", Address: p.Listeners[0].Address, Clear: true}},
		Routes:    []Route{{Pool: "api"}},
		Pools:     []Pool{{Name: "api", Backends: []Backend{{Address: p.Pools[0].Backends[0].Address}}}},
	}
	if err := built.Complete(); err != nil || !reflect.DeepEqual(built, p) {
		t.Errorf("completed %+v, %v; want %+v", built, err, p)
	}
	if err := built.Complete(); err != nil || !reflect.DeepEqual(built, p) {
		t.Errorf("completed twice: %+v, %v", built, err)
	}
	built.Routes[0].Pool = "apy"
	built.Pools[0].Backends[0].Weight = -1
	err = built.Complete()
	want := "pools[0].backends[0].weight: must be from 1 to 1000, not -1\nroutes[0].pool: no pool is named apy; did you mean api?"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if err := new(GSLB).Complete(); err == nil {
		t.Error("an empty DNS node is complete")
	}
}

func TestLoadResolvesPaths(t *testing.T) {
	p, err := LoadPop(referenceFile(KindPop))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{p.Fleet.KeyFile, "reference/secrets/fleet.keys"},
		{p.Fleet.Consul.CAFile, "reference/tls/consul-ca.pem"},
		{p.TLS.Certificates[0].KeyFile, "reference/secrets/shop.example.key"},
		{p.Pools[1].TLS.CAFile, "reference/tls/backends-ca.pem"},
		{p.BGP.Neighbors[0].PasswordFile, "reference/secrets/bgp.password"},
	} {
		if filepath.ToSlash(c.got) != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "pop.yaml")
	write(t, file, smallPop+"tls: {client_ca_file: /etc/ca.pem}\n", 0o644)
	if p, err := LoadPop(file); err != nil || p.TLS.ClientCAFile != "/etc/ca.pem" || p.Fleet.KeyFile != "" {
		t.Errorf("got %+v, %v; want absolute and absent paths untouched", p, err)
	}
	if _, err := LoadPop(filepath.Join(dir, "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	const pop = `
node: {name: fra-1, pop: fra}
fleet: {consul: {address: "127.0.0.1:8500", token_file: token}, key_file: keys}
listeners: [{name: web, address: "192.0.2.1:443"}]
tls:
  certificates: [{cert_file: sub/cert.pem, key_file: sub}]
routes: [{pool: api}]
pools: [{name: api, inventory: api}]
`
	file := filepath.Join(dir, "pop.yaml")
	write(t, file, pop, 0o644)
	write(t, filepath.Join(dir, "keys"), "k", 0o640)
	write(t, filepath.Join(dir, "sub/cert.pem"), "c", 0o644)
	kind, err := Check(file)
	want := strings.ReplaceAll(`DIR/pop.yaml:3:57: fleet.consul.token_file: DIR/token: no such file or directory
DIR/pop.yaml:3:75: fleet.key_file: DIR/keys holds a secret and is open to others (mode 0640); run chmod 600 on it
DIR/pop.yaml:6:54: tls.certificates[0].key_file: DIR/sub is not a regular file`, "DIR", dir)
	if kind != KindPop || err == nil || err.Error() != want {
		t.Errorf("got %s\n%v\nwant\n%s", kind, err, want)
	}

	write(t, filepath.Join(dir, "keys"), "k", 0o600)
	write(t, filepath.Join(dir, "token"), "t", 0o600)
	write(t, filepath.Join(dir, "key"), "t", 0o400)
	write(t, file, strings.Replace(pop, "key_file: sub}", "key_file: key}", 1), 0o644)
	if kind, err := Check(file); kind != KindPop || err != nil {
		t.Errorf("got %s, %v; want a good pop config", kind, err)
	}

	write(t, file, strings.Replace(pop, "routes", "route", 1), 0o644)
	if _, err := Check(file); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v; want the unknown key and the directory in place of a key", err)
	}
}

func TestCheckReference(t *testing.T) {
	for _, k := range kinds {
		kind, err := Check(referenceFile(k.name))
		if kind != k.name {
			t.Errorf("%s: told to be %q", k.name, kind)
		}
		// Certificates and secrets are the operator's; all else is beside it.
		var problems Errors
		if err != nil && !errors.As(err, &problems) {
			t.Fatal(err)
		}
		for _, p := range problems {
			if !strings.Contains(p.Message, "/tls/") && !strings.Contains(p.Message, "/secrets/") {
				t.Error(p)
			}
		}
	}
}

func TestCheckTellsTheKind(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"pops: []", KindLab},
		{"clients: a.csv\npops: []\nlisten: []", KindGSLB},
		{"rate: 5", KindLab},
		{"node: {}\nfleet: {}\nlisteners: []", KindPop},
		{"node: {}\nfleet: {}\nlisten: []", KindGSLB},
		{"node: {}\nfleet: {}", ""},
		{"nodes: {}", ""},
		{"x: listen", ""},
		{"{}", ""},
		{"[]", ""},
		{"", ""},
	} {
		file := filepath.Join(t.TempDir(), "x.yaml")
		write(t, file, c.text, 0o644)
		kind, err := Check(file)
		if kind != c.want {
			t.Errorf("%q: got %q, want %q", c.text, kind, c.want)
		}
		if err == nil && kind != KindLab {
			t.Errorf("%q: no error", c.text)
		}
	}
	if _, err := Check(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}
