package cli

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"anyedge/internal/audit"
	"anyedge/internal/fleet"
	"anyedge/internal/ops"
)

func overrides(t *testing.T, store fleet.Store) map[string]fleet.Override {
	t.Helper()
	entries, _, err := store.List(t.Context(), "state/overrides/")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]fleet.Override)
	for _, e := range entries {
		var o fleet.Override
		if err := json.Unmarshal(e.Value, &o); err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(e.Key, "state/overrides/")] = o
	}
	return all
}

func TestOverrideReachesTheFleet(t *testing.T) {
	agent, store := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	const more = " --for 30m --reason maintenance"
	for _, c := range []struct{ args, key, action string }{
		{"withdraw" + more, "node/fra-1", "withdraw"},
		{"announce --node fra-2" + more, "node/fra-2", "announce"},
		{"depreference --region eu" + more, "region/eu", "depreference"},
		{"depreference --fleet" + more, "fleet/fleet", "depreference"},
		{"withdraw --pop iad --force" + more, "pop/iad", "withdraw"},
		{"announce --pop iad --prefix 192.0.2.0/24" + more, "pop/iad/192.0.2.0_24", "announce"},
	} {
		args := append(strings.Fields("override "+c.args), "--admin", admin)
		if status, _, errOut := call(args...); status != 0 {
			t.Fatalf("%s: %s", c.args, errOut)
		}
		o, ok := overrides(t, store)[c.key]
		if !ok || o.Action != c.action || o.By == "" || o.Reason != "maintenance" || o.Until.Sub(o.At) != 30*time.Minute ||
			time.Since(o.At) > time.Minute || o.Force != strings.Contains(c.args, "--force") {
			t.Errorf("%s: %+v", c.args, o)
		}
	}
	if status, _, errOut := call("override", "clear", "--pop", "iad", "--admin", admin); status != 0 {
		t.Error(errOut)
	}
	if all := overrides(t, store); len(all) != 5 || all["pop/iad"].Action != "" {
		t.Errorf("%v", all)
	}
	list := agent.Audit(audit.Query{Last: 100})
	if n := len(list); n != 7 || list[4].Act != audit.Override || !list[4].Forced || list[4].What != "withdraw: maintenance" || list[6].Act != audit.ClearOverride || list[6].On != "PoP iad" {
		t.Errorf("%+v", list)
	}
}

func TestOverrideRefusesWhatItCannotDo(t *testing.T) {
	agent, store := newAgent(t)
	admin := serveAdmin(t, popEndpoints(agent))
	for args, want := range map[string]string{
		"":                                 "say what to do",
		"blackhole":                        `"blackhole" is not announce`,
		"announce":                         "--for is required",
		"announce --for 1h":                "--reason is required",
		"announce --for 1h --reason x y":   "arguments after the flags",
		"clear --for 1h":                   "clear takes no --for",
		"withdraw --pop a --node b":        "give one of",
		"withdraw --fleet --node b":        "give one of",
		"list --pop a":                     "not defined: -pop",
		"withdraw --for 1h --reason x --z": "not defined: -z",
	} {
		status, _, errOut := call(append(strings.Fields("override "+args), []string{"--admin", admin}[:2*min(1, len(args))]...)...)
		if status != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%q: status %d, %q, want %q", args, status, errOut, want)
		}
	}
	client := ops.Client{Address: netip.MustParseAddrPort(admin)}
	for body, want := range map[string]string{
		`{"scope":"planet"}`: `scope: "planet" is not`,
		`{"scope":"node","action":"announce","reason":"x","for":"1h"}`:                                        "by: an override says who",
		`{"scope":"node","action":"announce","by":"ada","for":"1h"}`:                                          "reason: an override says",
		`{"scope":"node","action":"announce","by":"ada","reason":"x"}`:                                        "until:",
		`{"scope":"node","action":"announce","by":"ada","reason":"x","for":"169h"}`:                           "longer than",
		`{"scope":"fleet","action":"withdraw","force":true,"by":"ada","reason":"x","for":"1h"}`:               "not withdrawn by force",
		`{"scope":"node","prefix":"192.0.2.0/24","action":"withdraw","by":"ada","reason":"x","for":"1h"}`:     "takes force",
		`{"scope":"node","prefix":"192.0.2.1/24","action":"depreference","by":"ada","reason":"x","for":"1h"}`: "bits behind its length",
		`{"scope":"node","name":"../ring","action":"clear","by":"ada"}`:                                       "is not a name",
		`{"scope":"node","action":"frighten","by":"ada","reason":"x","for":"1h"}`:                             `"frighten" is none of`,
	} {
		err := client.Post(t.Context(), "/v1/override", json.RawMessage(body), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if all := overrides(t, store); len(all) != 0 {
		t.Errorf("%v", all)
	}
}

func TestOverridesAreListed(t *testing.T) {
	at := time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	admin := serveAdmin(t, []ops.Endpoint{canned("/v1/override", map[string]any{"overrides": []fleet.Override{
		{Scope: "pop", Name: "iad", Action: "withdraw", Force: true, By: "ada", Reason: "fire", Until: at},
		{Scope: "node", Name: "fra-1", Prefix: netip.MustParsePrefix("192.0.2.0/24"), Action: "depreference", By: "bob", Reason: "test", Until: at},
	}})})
	status, out, _ := call("override", "list", "--admin", admin)
	want := "pop iad     all prefixes  withdraw by force  until 2026-05-04 10:00:00  by ada  fire\n" +
		"node fra-1  192.0.2.0/24  depreference       until 2026-05-04 10:00:00  by bob  test\n"
	if status != 0 || out != want {
		t.Errorf("status %d, %q", status, out)
	}
}
