package gslb

import (
	"path/filepath"
	"strings"
	"testing"

	"anyedge/internal/audit"
	"anyedge/internal/fleet"
)

// What operators did, by signals too, is on record after a restart.
func TestAuditOutlivesTheNode(t *testing.T) {
	n := newTestNode(t, fleet.NewMemory(), nil, nodeConfig)
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.write("gslb.yaml", nodeConfig+"nonsense: 1\n")
	if err := n.Reload(t.Context()); err == nil {
		t.Fatal("nonsense was taken")
	}
	config := filepath.Join(n.dir, "gslb.yaml")
	n.write("gslb.yaml", nodeConfig)
	again, err := NewNode(NodeOptions{File: config, Config: n.cfg, Store: fleet.NewMemory(), Log: quiet, StateDir: filepath.Join(n.dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	acts := again.Audit(audit.Query{Last: 9})
	if len(acts) != 2 {
		t.Fatalf("%+v", acts)
	}
	for i, failed := range []string{"", "nonsense"} {
		if e := acts[i]; e.Act != audit.Reload || e.From != "signal" || e.On != "config "+config || !strings.Contains(e.Error, failed) || (e.Error == "") != (failed == "") {
			t.Errorf("%+v", e)
		}
	}
}
