package cli

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
	"anyedge/internal/ops"
	"anyedge/pop"
	"anyedge/pop/rollout"
)

func TestRolloutStartGivesTheConfigsFirst(t *testing.T) {
	var kept []string
	var asked []RolloutChange
	admin := serveAdmin(t, []ops.Endpoint{
		{Method: http.MethodPost, Path: "/v1/rollout/documents", Doc: "keep", Handle: func(_ context.Context, r ops.Request) (any, error) {
			var doc RolloutDocument
			err := r.Decode(&doc)
			kept = append(kept, doc.Config)
			return RolloutDocument{Sum: rollout.Sum([]byte(doc.Config))}, err
		}},
		{Method: http.MethodPost, Path: "/v1/rollout", Doc: "change", Handle: func(_ context.Context, r ops.Request) (any, error) {
			var c RolloutChange
			err := r.Decode(&c)
			asked = append(asked, c)
			return nil, err
		}},
	})
	fra, iad := edit(t, "fra.yaml"), edit(t, "iad.yaml", "fra-1, pop: fra", "iad-1, pop: iad")
	status, out, errOut := call("rollout", "start", "--admin", admin, "--config", fra, "--config", iad,
		"--soak", "5m", "--order", "iad,fra", "--reason", "more room", "--retire", "198.51.100.0/24")
	if status != 0 || out+errOut != "" || len(kept) != 2 || len(asked) != 1 {
		t.Fatalf("status %d, %q, %d documents, %d requests", status, out+errOut, len(kept), len(asked))
	}
	got := asked[0].Start
	if asked[0].Action != "start" || got == nil || got.Soak.Std() != 5*time.Minute || got.Take.Std() != time.Minute || got.Note != "more room" ||
		got.Force || !slices.Equal(got.Order, []string{"iad", "fra"}) || len(got.Retire) != 1 ||
		!slices.Equal(got.Documents, []string{rollout.Sum([]byte(kept[0])), rollout.Sum([]byte(kept[1]))}) {
		t.Errorf("asked for %+v", got)
	}
	for _, action := range []string{"pause", "resume", "abort"} {
		asked = nil
		if status, out, errOut := call("rollout", action, "--admin", admin); status != 0 || out+errOut != "" || len(asked) != 1 || asked[0].Action != action || asked[0].Start != nil {
			t.Errorf("%s: status %d, %q, %+v", action, status, out+errOut, asked)
		}
	}
	for want, args := range map[string][]string{
		"--config is required":      {"start"},
		"one of start, status":      {},
		"arguments after the flags": {"forward"},
		"node.name":                 {"start", "--config", fra, "--config", fra},
	} {
		kept = nil
		if status, _, errOut := call(append([]string{"rollout"}, args...)...); status == 0 || !strings.Contains(errOut, want) || len(kept) != 0 {
			t.Errorf("%v: status %d, %q", args, status, errOut)
		}
	}
}

func TestRolloutStatus(t *testing.T) {
	r := rollout.Rollout{
		Generation: 7, Phase: rollout.Running, By: "kim", Note: "more room", Turn: 1, Open: true,
		Steps: []rollout.Step{{Pop: "fra"}, {Pop: "iad"}, {Pop: "sin"}},
	}
	s := pop.RolloutStatus{Rollout: &r, Waits: "sin-1 is not healthy", Nodes: []pop.RolloutNode{
		{Pop: "fra", Node: "fra-1", Config: "new", State: "healthy"},
		{Pop: "iad", Node: "iad-1", Config: "new", State: "unhealthy", Failed: "unhealthy on the new config: hung"},
		{Pop: "sin", Node: "sin-1", Config: "unknown"},
	}}
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/rollout", s)})
	const want = `rollout  7, running
started  by kim: more room
waits    sin-1 is not healthy
fra      soaked   fra-1  new config, healthy
iad      soaks    iad-1  new config, unhealthy: unhealthy on the new config: hung
sin      to come  sin-1  not heard of
`
	if status, out, errOut := call("rollout", "status", "--admin", admin); status != 0 || out != want || errOut != "" {
		t.Errorf("status %d, %q\n%s", status, errOut, out)
	}
	r.Phase, r.Reason = rollout.Failed, "iad-1: hung"
	failed := serveAdmin(t, []ops.Endpoint{canned("/v1/rollout", s)})
	if status, _, errOut := call("rollout", "status", "--wait", "--admin", failed); status != 1 || errOut != "anyedge rollout: rollout 7 failed: iad-1: hung\n" {
		t.Errorf("status %d, %q", status, errOut)
	}
	none := serveAdmin(t, []ops.Endpoint{canned("/v1/rollout", pop.RolloutStatus{})})
	if status, out, _ := call("rollout", "status", "--wait", "--admin", none); status != 0 || out != "there was no rollout yet\n" {
		t.Errorf("status %d, %q", status, out)
	}
}

// What an operator did wrong is told from what the store did.
func TestRolloutOverTheAdminAPI(t *testing.T) {
	agent, _ := newAgent(t)
	admin := serveAdmin(t, rolloutEndpoints(agent))
	for want, body := range map[string]RolloutChange{
		"is not start, pause":    {Action: "go"},
		"goes with action start": {Action: "start"},
		"there is none":          {Action: "abort"},
		"store is out of reach":  {Action: "start", Start: &pop.StartRollout{Soak: configs.Duration(time.Second)}},
	} {
		err := ops.Client{Address: netip.MustParseAddrPort(admin)}.Post(t.Context(), "/v1/rollout", body, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", body, err, want)
		}
	}
	var s pop.RolloutStatus
	if err := (ops.Client{Address: netip.MustParseAddrPort(admin)}).Get(t.Context(), "/v1/rollout", &s); err != nil || s.Rollout != nil {
		t.Errorf("%+v, %v", s, err)
	}
	var kept RolloutDocument
	if err := (ops.Client{Address: netip.MustParseAddrPort(admin)}).Post(t.Context(), "/v1/rollout/documents", RolloutDocument{Config: announcingPop}, &kept); err != nil || kept.Sum != rollout.Sum([]byte(announcingPop)) {
		t.Errorf("%+v, %v", kept, err)
	}
}
