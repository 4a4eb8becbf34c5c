package fleet_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/internal/fleet"
)

func queries(node, data string) fleet.Queries {
	return fleet.Queries{Node: node, At: time.Unix(1000, 0).UTC(), Data: []byte(data)}
}

// What DNS nodes were asked is sealed, counts under its own key, and is read by those
// who follow round-trip times; the next process of a node replaces it.
func TestQueriesOfDNSNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := fleet.NewMemory()
		f, err := fleet.New(fleet.Config{Store: memory, Sealer: sealer(t, keyLine(1)), FollowRTT: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		defer func() { cancel(); <-done }()
		old, err := memory.NewSession(ctx, "old", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		next, other := session(t, memory), session(t, memory)
		for _, p := range []struct {
			session    fleet.Session
			node, data string
			want       error
		}{{old, "ns1", "1", nil}, {next, "ns1", "very private", nil}, {old, "ns1", "3", fleet.ErrSession}, {other, "ns0", "4", nil}} {
			if err := f.PublishQueries(ctx, p.session, queries(p.node, p.data)); !errors.Is(err, p.want) {
				t.Fatalf("%s: error %v, want %v", p.data, err, p.want)
			}
		}
		e, err := memory.Get(ctx, "queries/ns1")
		if err != nil || bytes.Contains(e.Value, []byte("ns1")) || e.Session != next {
			t.Fatalf("stored %q under %q, %v", e.Value, e.Session, err)
		}
		if _, err := memory.CompareAndSwap(ctx, "queries/ns2", e.Value, 0); err != nil {
			t.Fatal(err)
		}
		v := await(t, f, "three values", time.Minute, func(v *fleet.View) bool { return len(v.Queries)+len(v.Rejected) == 3 })
		if len(v.Queries) != 2 || v.Queries[0].Node != "ns0" || string(v.Queries[1].Data) != "very private" || v.Rejected[0] != "queries/ns2" {
			t.Errorf("%+v, rejected %v", v.Queries, v.Rejected)
		}
		for _, bad := range []fleet.Queries{queries("", "x"), queries("ns1", strings.Repeat("x", fleet.MaxQueries+1))} {
			if err := f.PublishQueries(ctx, next, bad); err == nil {
				t.Errorf("published %d bytes of %q", len(bad.Data), bad.Node)
			}
		}
	})
}
