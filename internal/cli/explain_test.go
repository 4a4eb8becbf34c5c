package cli

import (
	"net/netip"
	"strings"
	"testing"

	"anyedge/internal/audit"
	"anyedge/internal/ops"
	"anyedge/pop"
)

func TestExplainPrintsSentencesAndDecisions(t *testing.T) {
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/explain", pop.Explanation{
		Sentences: []string{"fra-1 is out.", "It cannot serve."},
		Decisions: []pop.Decision{{Announced: pop.Depreferred, Wanted: pop.Withdrawn, Reason: "hung", Guard: pop.GuardDecision{Answer: "refused"}}},
	})})
	status, out, errOut := call("explain", "--prefix", "192.0.2.0/24", "--admin", admin)
	want := "fra-1 is out.\nIt cannot serve.\n\nLast decisions:\n  0001-01-01 00:00:00.000  depreferred (wanted withdrawn, guard refused): hung\n"
	if status != 0 || out != want {
		t.Errorf("status %d, %q, %q", status, out, errOut)
	}
	if status, out, _ := call("explain", "--json", "--admin", admin); status != 0 || !strings.Contains(out, `"sentences"`) {
		t.Errorf("status %d, %q", status, out)
	}
	for _, args := range [][]string{{"--last", "-1"}, {"--prefix", "x"}} {
		if status, _, _ := call(append([]string{"explain", "--admin", admin}, args...)...); status != 2 {
			t.Errorf("%v: status %d", args, status)
		}
	}
}

func TestExplainOfAnAgent(t *testing.T) {
	agent, _ := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	status, out, errOut := call("explain", "--admin", admin)
	if status != 0 || out != "fra-1 announces nothing: its config has neither a bgp nor a vrrp section.\n" {
		t.Errorf("status %d, %q, %q", status, out, errOut)
	}
	client := ops.Client{Address: netip.MustParseAddrPort(admin)}
	for _, path := range []string{"/v1/explain?prefix=192.0.2.0", "/v1/explain?last=x", "/v1/audit?last=-1"} {
		if err := client.Get(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "prefix:") && !strings.Contains(err.Error(), "last:") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestActsAreAudited(t *testing.T) {
	agent, _ := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	for _, args := range []string{"drain --pop iad --reason disk --for 1h", "undrain --pop iad", "drain --prefix 192.0.2.0/24"} {
		if status, _, errOut := call(append(strings.Fields(args), "--admin", admin)...); status != 0 {
			t.Fatal(errOut)
		}
	}
	var answer struct{ Entries []audit.Entry }
	if err := (ops.Client{Address: netip.MustParseAddrPort(admin)}).Get(t.Context(), "/v1/audit?last=9", &answer); err != nil {
		t.Fatal(err)
	}
	list := answer.Entries
	if len(list) != 3 {
		t.Fatalf("%+v", list)
	}
	for i, want := range []audit.Entry{
		{Act: audit.Drain, On: "PoP iad", What: "disk"}, {Act: audit.Undrain, On: "PoP iad"}, {Act: audit.Drain, On: "node fra-1 192.0.2.0/24"},
	} {
		e := list[i]
		if e.Act != want.Act || e.On != want.On || e.What != want.What || e.By == "" || !strings.HasPrefix(e.From, "127.0.0.1:") || e.At.IsZero() || e.Until.IsZero() != (i > 0) {
			t.Errorf("%+v, want %+v", e, want)
		}
	}
}
