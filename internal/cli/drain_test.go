package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
	"anyedge/pop"
)

func TestDrainAsksForWhatItWasTold(t *testing.T) {
	var got []DrainRequest
	admin := serveAdmin(t, []ops.Endpoint{{Method: http.MethodPost, Path: "/v1/drain", Doc: "keep",
		Handle: func(_ context.Context, r ops.Request) (any, error) {
			var req DrainRequest
			err := r.Decode(&req)
			got = append(got, req)
			return nil, err
		}}})
	for _, c := range []struct {
		args string
		want DrainRequest
	}{
		{"drain", DrainRequest{Scope: "node", Drain: true}},
		{"drain --node fra-2 --for 1h30m --reason kernel", DrainRequest{Scope: "node", Name: "fra-2", Drain: true, Reason: "kernel", For: configs.Duration(90 * time.Minute)}},
		{"drain --pop fra", DrainRequest{Scope: "pop", Name: "fra", Drain: true}},
		{"drain --region eu", DrainRequest{Scope: "region", Name: "eu", Drain: true}},
		{"drain --pop fra --prefix 192.0.2.0/24", DrainRequest{Scope: "pop", Name: "fra", Drain: true, Prefix: netip.MustParsePrefix("192.0.2.0/24")}},
		{"undrain --prefix 2001:db8::/32", DrainRequest{Scope: "node", Prefix: netip.MustParsePrefix("2001:db8::/32")}},
		{"undrain", DrainRequest{Scope: "node"}},
		{"undrain --pop fra", DrainRequest{Scope: "pop", Name: "fra"}},
	} {
		got = nil
		status, out, errOut := call(append(strings.Fields(c.args), "--admin", admin)...)
		if status != 0 || out+errOut != "" || len(got) != 1 {
			t.Errorf("%s: status %d, %q, %d requests", c.args, status, out+errOut, len(got))
			continue
		}
		if got[0].By = ""; got[0] != c.want {
			t.Errorf("%s: %+v, want %+v", c.args, got[0], c.want)
		}
	}
	for _, args := range []string{"drain --node a --pop b", "drain --pop a --region b", "undrain --node a --region b", "drain --node a --pop b --region c"} {
		got = nil
		status, _, errOut := call(append(strings.Fields(args), "--admin", admin)...)
		if status != 2 || !strings.Contains(errOut, "give one of --node, --pop and --region") || len(got) != 0 {
			t.Errorf("%s: status %d, %q, %d requests", args, status, errOut, len(got))
		}
	}
	if status, _, errOut := call("undrain", "--for", "5m", "--admin", admin); status != 2 || !strings.Contains(errOut, "not defined: -for") {
		t.Errorf("undrain --for: status %d, %q", status, errOut)
	}
}

// newAgent is an agent that was never run, over a store in memory, and that
// store as another node sees it.
func newAgent(t *testing.T) (*pop.Agent, fleet.Store) {
	t.Helper()
	store := fleet.NewMemory()
	return newAgentOver(t, store, nil), store
}

func newAgentOver(t *testing.T, store fleet.Store, sealer *fleet.Sealer) *pop.Agent {
	t.Helper()
	file := write(t, t.TempDir(), "pop.yaml", minimalPop)
	cfg, err := configs.LoadPop(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := pop.New(pop.Options{
		File: file, Config: cfg, Store: store, Sealer: sealer, Worker: []string{"nothing"},
		Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// drains are the store's drains as "scope/name".
func drains(t *testing.T, store fleet.Store) (keys []string, newest fleet.Drain) {
	t.Helper()
	entries, _, err := store.List(t.Context(), "state/drains/")
	if err != nil {
		t.Fatal(err)
	}
	ofPrefixes, _, err := store.List(t.Context(), "state/prefix-drains/")
	if err != nil {
		t.Fatal(err)
	}
	entries = append(entries, ofPrefixes...)
	var index uint64
	for _, e := range entries {
		keys = append(keys, strings.TrimPrefix(e.Key, "state/drains/"))
		if e.Index > index {
			index, newest = e.Index, fleet.Drain{}
			if err := json.Unmarshal(e.Value, &newest); err != nil {
				t.Fatal(err)
			}
		}
	}
	return keys, newest
}

func TestDrainReachesTheFleet(t *testing.T) {
	agent, store := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	for _, c := range []struct {
		args string
		want []string // the drains there are then
	}{
		{"drain", []string{"node/fra-1"}}, // the node that is asked
		{"drain --node fra-2 --reason disk", []string{"node/fra-1", "node/fra-2"}},
		{"drain --pop iad --for 1h", []string{"node/fra-1", "node/fra-2", "pop/iad"}},
		{"undrain", []string{"node/fra-2", "pop/iad"}},
		{"undrain", []string{"node/fra-2", "pop/iad"}}, // again
		{"undrain --node fra-2", []string{"pop/iad"}},
		{"undrain --region eu", []string{"pop/iad"}}, // that was never there
		{"undrain --pop iad", nil},
		{"drain --prefix 192.0.2.0/24", []string{"state/prefix-drains/node/fra-1/192.0.2.0_24"}},
		{"undrain", []string{"state/prefix-drains/node/fra-1/192.0.2.0_24"}}, // of the whole
		{"undrain --prefix 192.0.2.0/24", nil},
	} {
		status, _, errOut := call(append(strings.Fields(c.args), "--admin", admin)...)
		got, newest := drains(t, store)
		if status != 0 || !slices.Equal(got, c.want) {
			t.Errorf("%s: status %d, %q, drains %v, want %v", c.args, status, errOut, got, c.want)
		}
		switch {
		case strings.Contains(c.args, "--reason"):
			if newest.Reason != "disk" || time.Since(newest.At) > time.Minute || !newest.Until.IsZero() {
				t.Errorf("%s: %+v", c.args, newest)
			}
		case strings.Contains(c.args, "--for"):
			if newest.Until.Sub(newest.At) != time.Hour {
				t.Errorf("%s: %+v", c.args, newest)
			}
		}
	}
}

func TestDrainEndpointDefaultsToItsOwn(t *testing.T) {
	agent, store := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	client := ops.Client{Address: netip.MustParseAddrPort(admin)}
	for _, scope := range []string{"node", "pop", "region"} {
		if err := client.Post(t.Context(), "/v1/drain", DrainRequest{Scope: scope, Drain: true}, nil); err != nil {
			t.Errorf("%s: %v", scope, err)
		}
	}
	if got, _ := drains(t, store); !slices.Equal(got, []string{"node/fra-1", "pop/fra", "region/eu"}) {
		t.Errorf("drains %v", got)
	}
}

func TestDrainEndpointRefusesNonsense(t *testing.T) {
	agent, store := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	for body, want := range map[string]string{
		`{"drain":true}`:                                        `scope: "" is not node, pop or region`,
		`{"scope":"planet","drain":true}`:                       `scope: "planet" is not node, pop or region`,
		`{"scope":"node","drain":true,"for":"-1h"}`:             "negative",
		`{"scope":"node","drain":true,"prefix":"192.0.2.1/24"}`: "has bits behind its length",
		`{"scope":"node","drian":true}`:                         `unknown field "drian"`,
		`{"scope":"node","name":"no name","drain":true}`:        `"no name" is not a name`,
		`{"scope":"node","name":"../x","drain":false}`:          `"../x" is not a name`,
	} {
		err := ops.Client{Address: netip.MustParseAddrPort(admin)}.Post(t.Context(), "/v1/drain", json.RawMessage(body), nil)
		var refused *ops.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want 400 with %q", body, err, want)
		}
	}
	if got, _ := drains(t, store); got != nil {
		t.Errorf("drains %v", got)
	}
}

// goneStore does not answer.
type goneStore struct{ fleet.Store }

func (goneStore) Get(context.Context, string) (fleet.Entry, error) {
	return fleet.Entry{}, errors.New("no route to the store")
}

func TestDrainSaysWhenTheFleetDidNotTakeIt(t *testing.T) {
	sealer, err := fleet.ParseKeys([]byte(strings.Repeat("5a", 32)))
	if err != nil {
		t.Fatal(err)
	}
	admin := serveAdmin(t, popEndpoints(newAgentOver(t, goneStore{fleet.NewMemory()}, sealer)))
	status, _, errOut := call("drain", "--admin", admin)
	if status != 1 || !strings.HasSuffix(errOut, "the fleet store did not take it: no route to the store\n") {
		t.Errorf("status %d, %q", status, errOut)
	}
}
