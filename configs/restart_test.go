package configs

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestChangedKeys(t *testing.T) {
	text, err := os.ReadFile("reference/pop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parsed := func(replace ...string) map[string]string {
		t.Helper()
		changed := strings.NewReplacer(replace...).Replace(string(text))
		if changed == string(text) && replace != nil {
			t.Fatalf("nothing like %q in the reference", replace)
		}
		cfg, err := ParsePop("pop.yaml", []byte(changed))
		if err != nil {
			t.Fatal(err)
		}
		return FixedKeys(cfg)
	}
	old := parsed()
	for key, sum := range old {
		if sum == "" {
			t.Errorf("%s has no sum", key)
		}
	}
	for name, c := range map[string]struct {
		next map[string]string
		want string
	}{
		"nothing":         {parsed(), ""},
		"only a comment":  {parsed("node:", "# hello\nnode:"), ""},
		"the AS number":   {parsed("  asn: 64512", "  asn: 64999"), "bgp.asn"},
		"the same by far": {parsed("\npools:", "\n\n\npools:"), ""},
	} {
		if got := strings.Join(ChangedKeys(old, c.next), " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if got := strings.Join(ChangedKeys(c.next, old), " "); got != c.want {
			t.Errorf("%s, back: %s, want %s", name, got, c.want)
		}
	}
	if got := ChangedKeys(map[string]string{"a": "1", "bgp": "x", "bgp.asn": "2", "bgpx": "3"}, map[string]string{"a": "1"}); !slices.Equal(got, []string{"bgp", "bgpx"}) {
		t.Errorf("what is inside a key that went: %v", got)
	}
}

// What decides is how a config reads, not how it was built.
func TestFixedKeysOfNothing(t *testing.T) {
	if got := FixedKeys(&GSLB{Keys: []DNSKey{}, XDP: nil}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	one, other := &GSLB{XDP: &DNSXDP{Interface: "eth0"}}, &GSLB{XDP: &DNSXDP{Interface: "eth1"}, Encrypted: &EncryptedDNS{CertFile: "c"}}
	if err := RestartNeeded(one, other); err == nil || err.Error() != "xdp changed: that needs a restart" {
		t.Error(err)
	}
	if err := RestartNeeded(one, one); err != nil {
		t.Error(err)
	}
}
