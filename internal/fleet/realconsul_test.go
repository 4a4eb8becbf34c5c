package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/consultest"
)

// The View on a real Consul that is stopped, goes on, is killed, and comes back
// with nothing.
func TestViewOnRealConsul(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t)
	store := dial(t, fleet.ConsulConfig{Address: server.Address()})
	f := run(t, store)
	ctx := t.Context()
	s, err := store.NewSession(ctx, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.PutReport(ctx, s, report("fra-1")); err != nil {
		t.Fatal(err)
	}
	if err := f.AcquireLease(ctx, s, lease("fra-1"), always); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PutRing(ctx, []byte("ring"), 0); err != nil {
		t.Fatal(err)
	}
	complete := func(v *fleet.View) bool {
		return v.Connected && len(v.Reports) == 1 && len(v.Leases.Holders) == 1 && string(v.Ring) == "ring"
	}
	await(t, f, "everything", 10*time.Second, complete)

	// A change is seen within moments.
	began := time.Now()
	if err := f.SetDrain(ctx, fleet.Drain{Scope: fleet.ScopePop, Name: "fra"}); err != nil {
		t.Fatal(err)
	}
	await(t, f, "drain", 10*time.Second, func(v *fleet.View) bool { return len(v.Drains) == 1 })
	t.Logf("a drain was seen after %v", time.Since(began))

	began = time.Now()
	server.Pause()
	v := await(t, f, "loss by silence", 10*time.Second, lost)
	t.Logf("silence was seen after %v", v.LostSince.Sub(began))
	if took := v.LostSince.Sub(began); took > 2*time.Second {
		t.Errorf("silence was seen only after %v", took)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := f.AcquireLease(short, s, lease("iad-1"), always); err == nil {
		t.Error("a lease was given by a silent store")
	}
	began = time.Now()
	server.Resume()
	await(t, f, "recovery", 20*time.Second, complete)
	t.Logf("recovered after %v", time.Since(began))

	began = time.Now()
	server.Kill()
	v = await(t, f, "loss by death", 10*time.Second, lost)
	t.Logf("death was seen after %v", v.LostSince.Sub(began))
	if len(v.Reports) != 1 || string(v.Ring) != "ring" {
		t.Errorf("what was known was given up: %+v", v)
	}
	server.Restart()
	await(t, f, "the empty store", 20*time.Second, func(v *fleet.View) bool {
		return v.Connected && len(v.Reports) == 0 && v.Ring == nil
	})
	if err := f.PutReport(ctx, s, report("fra-1")); !errors.Is(err, fleet.ErrSession) {
		t.Fatalf("error %v, want that the session is gone", err)
	}
	if s, err = store.NewSession(ctx, "test", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := f.PutReport(ctx, s, report("fra-1")); err != nil {
		t.Fatal(err)
	}
	await(t, f, "the new report", 10*time.Second, func(v *fleet.View) bool { return len(v.Reports) == 1 })
}

// The rules of an ACL token that is enough for everything here.
const enough = `
key_prefix "anyedge/" { policy = "write" }
session_prefix ""     { policy = "write" }
service_prefix ""     { policy = "read" }
node_prefix ""        { policy = "read" }
`

func TestRealConsulWithTokens(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t, fmt.Sprintf(`
acl {
  enabled = true
  default_policy = "deny"
  tokens { initial_management = %q, agent = %q }
}`, consultest.Token, consultest.Token))
	admin, err := api.NewClient(&api.Config{Address: server.Address(), Token: consultest.Token})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := admin.ACL().PolicyCreate(&api.ACLPolicy{Name: "anyedge", Rules: enough}, nil); err != nil {
		t.Fatal(err)
	}
	token, _, err := admin.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{Name: "anyedge"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}

	path := write(t, filepath.Join(t.TempDir(), "token"), "00000000-0000-0000-0000-00000000dead")
	store := dial(t, fleet.ConsulConfig{Address: server.Address(), TokenFile: path})
	f := run(t, store)
	ctx := t.Context()
	if err := f.SetInventory(ctx, "api", nil); err == nil {
		t.Fatal("a token that does not exist may write")
	}
	if f.View().Connected {
		t.Fatal("connected with a token that does not exist")
	}
	write(t, path, token.SecretID+"\n")
	await(t, f, "connection", 10*time.Second, connected)
	s, err := store.NewSession(ctx, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"report":    f.PutReport(ctx, s, report("fra-1")),
		"inventory": f.SetInventory(ctx, "api", nil),
		"lease":     f.AcquireLease(ctx, s, lease("fra-1"), always),
		"release":   f.ReleaseLease(ctx, "fra-1"),
		"renewal":   store.RenewSession(ctx, s),
		"take over": f.TakeOver(ctx, "fra-1"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := dial(t, fleet.ConsulConfig{Address: server.Address(), TokenFile: path, Prefix: "other/"})
	if _, err := other.CompareAndSwap(ctx, "k", []byte("v"), 0); err == nil || errors.Is(err, fleet.ErrConflict) {
		t.Errorf("writing under another prefix: %v", err)
	}
}

func TestCatalogOnRealConsul(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t)
	admin, err := api.NewClient(&api.Config{Address: server.Address()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sets := make(chan []fleet.Backend, 16)
	done := make(chan error, 1)
	catalog := dial(t, fleet.ConsulConfig{Address: server.Address()}).Catalog(slog.New(slog.DiscardHandler))
	go func() {
		done <- catalog.Follow(ctx, "api", "prod", func(set []fleet.Backend) { sets <- set })
	}()
	next := func(want ...fleet.Backend) {
		t.Helper()
		late := time.After(10 * time.Second)
		for {
			select {
			case got := <-sets:
				if slices.Equal(got, want) {
					return
				}
				t.Logf("on the way: %v", got)
			case <-late:
				t.Fatalf("never got %v", want)
			}
		}
	}
	register := func(id, address string, weight int, checked bool, tags ...string) {
		t.Helper()
		service := &api.AgentServiceRegistration{
			ID: id, Name: "api", Address: address, Port: 8080, Tags: tags,
			Meta:    map[string]string{"zone": "a"},
			Weights: &api.AgentWeights{Passing: weight, Warning: 1},
		}
		if checked {
			service.Check = &api.AgentServiceCheck{CheckID: id, TTL: "1h", Status: api.HealthPassing}
		}
		if err := admin.Agent().ServiceRegister(service); err != nil {
			t.Fatal(err)
		}
	}
	at := func(address string, weight int) fleet.Backend {
		return fleet.Backend{Address: netip.MustParseAddrPort(address), Weight: weight, Zone: "a"}
	}
	next() // none yet
	register("one", "10.0.0.2", 3, true, "prod")
	next(at("10.0.0.2:8080", 3))
	register("untagged", "10.0.0.9", 1, false)
	register("two", "10.0.0.1", 1, false, "prod", "v2")
	next(at("10.0.0.1:8080", 1), at("10.0.0.2:8080", 3))
	if err := admin.Agent().UpdateTTL("one", "sick", api.HealthCritical); err != nil {
		t.Fatal(err)
	}
	next(at("10.0.0.1:8080", 1))
	if err := admin.Agent().UpdateTTL("one", "well", api.HealthPassing); err != nil {
		t.Fatal(err)
	}
	next(at("10.0.0.1:8080", 1), at("10.0.0.2:8080", 3))
	// A name instead of an address spoils the set, so the last one stays.
	register("bad", "origin.example", 1, false, "prod")
	if err := admin.Agent().ServiceDeregister("two"); err != nil {
		t.Fatal(err)
	}
	if err := admin.Agent().ServiceDeregister("bad"); err != nil {
		t.Fatal(err)
	}
	next(at("10.0.0.2:8080", 3))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
