package gslb

import (
	"testing"
	"time"

	"anyedge/internal/fleet"
	"anyedge/internal/fleet/consultest"
)

// Two nodes over a real Consul have one ring. When it dies they go on, and when it
// comes back with nothing they give the ring back.
func TestKeysOnRealConsul(t *testing.T) {
	t.Parallel()
	server := consultest.Start(t)
	var nodes []*signingNode
	for range 2 {
		store, err := fleet.NewConsul(fleet.ConsulConfig{Address: server.Address(), Prefix: "anyedge/"})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, runSigningNode(t, store, testSealer(t, "5a"), quick(), nil))
	}
	await := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within 30 s; keys %s and %s", what, nodes[0].tags(), nodes[1].tags())
			}
		}
	}
	await("the same keys", func() bool { return nodes[0].tags() != "[]" && nodes[0].tags() == nodes[1].tags() })
	keys := nodes[0].tags()

	server.Kill()
	await("the loss shows", func() bool { return !nodes[0].fleet.View().Connected && !nodes[1].fleet.View().Connected })
	if a, b := nodes[0].tags(), nodes[1].tags(); a != keys || b != keys {
		t.Errorf("without Consul: keys %s and %s, before %s", a, b, keys)
	}
	server.Restart()
	await("the ring is back", func() bool {
		stored, err := nodes[1].fleet.ZoneKeys(t.Context(), "edge.example")
		return err == nil && stored.Index > 0
	})
	if a, b := nodes[0].tags(), nodes[1].tags(); a != keys || b != keys {
		t.Errorf("after an empty Consul came back: keys %s and %s, before %s", a, b, keys)
	}
}
