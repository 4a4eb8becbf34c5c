package gslb

import (
	"bytes"
	"cmp"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"anyedge/gslb/dnssec"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// What a zone comes signed with leaves no place for what is made here.
func TestPresignedIsNotMixed(t *testing.T) {
	text, _ := presignedText(t, chainNSEC)
	signed := Zone{Name: "edge.example", Text: strings.ReplaceAll(text, "signed.example.", "edge.example.")}
	with := func(change func(*Zone)) []Zone {
		z := signed
		change(&z)
		return []Zone{z}
	}
	in := steering()
	in.Names = in.Names[:1]
	s, _, _ := start(t, Config{})
	for _, tt := range []struct {
		want string // "" for no error
		err  error
	}{
		{"zone edge.example.: an alias: ", s.Set(with(func(z *Zone) { z.Alias = "www.apex.example" }), nil)},
		{"zone edge.example.: ", s.Set(with(func(z *Zone) { z.Signing.Await = true }), nil)},
		{"zone edge.example.: ", s.Set(with(func(z *Zone) { z.Signing.Keys = combined(t, dnssec.Ed25519) }), nil)},
		{"", s.Set([]Zone{signed}, nil)},
		{"zone edge.example.: ", s.Sign("edge.example", combined(t, dnssec.Ed25519))},
		{"steered name www.edge.example: ", s.Update(table(t, in))},
	} {
		if tt.want == "" && tt.err == nil {
			continue
		}
		if tt.err == nil || !strings.HasPrefix(tt.err.Error(), tt.want+"edge.example:") || !strings.HasSuffix(tt.err.Error(), "RRSIG: the zone is signed already, so nothing in it can be steered, aliased or signed here") {
			t.Errorf("got %v, want %s", tt.err, tt.want)
		}
	}
}

// A copy has all that its primary has, is passed on with it, and follows changes.
func TestPresignedCopy(t *testing.T) {
	for about, how := range chains {
		t.Run(about, func(t *testing.T) {
			free := netip.MustParseAddrPort("127.0.0.1:0")
			all := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			signer := newPresigner(t, "copied.example", how)
			zones := func(serial int, to ...Peer) []Zone {
				// Spelled so that the changes have to find what was stored.
				text := signer.sign(version(serial, fmt.Sprintf("%s 300 TXT %d", "a", serial), "*.wild 300 TXT any"))
				return append(testZones(), primaryZone(text, &Transfer{Allow: all, Notify: to})...)
			}
			primary, _, _ := start(t, Config{Listen: []netip.AddrPort{free}, Zones: zones(1)})
			s, asks := startCopy(t, primary.Addresses()[0], "")
			await(t, asks, "a.copied.example TXT", `a.copied.example. 300 TXT "1"`)
			same := func() {
				t.Helper()
				n := wire(t, "copied.example")
				had, have := records(primary.view.Load().zones[n]), records(s.view.Load().zones[n])
				if !slices.Equal(had, have) {
					t.Errorf("copied\n%s\nof\n%s", strings.Join(have, "\n"), strings.Join(had, "\n"))
				}
			}
			same()
			if err := primary.SetZones(zones(2, Peer{Address: s.Addresses()[0]})); err != nil {
				t.Fatal(err)
			}
			await(t, asks, "a.copied.example TXT", `a.copied.example. 300 TXT "2"`)
			same()
			z := s.view.Load().zones[wire(t, "copied.example")]
			if len(z.history) != 1 || len(z.history[0].added) == len(z.all()) {
				t.Errorf("history %v", z.history)
			}
			file := filepath.Join(t.TempDir(), "kept")
			if err := replaceFile(file, z.writeTo); err != nil {
				t.Fatal(err)
			}
			kept, err := readCopy(z.name, file, time.Now())
			if err != nil || !slices.Equal(records(kept), records(z)) || kept.presigned == nil || len(kept.presigned.chain) != len(z.presigned.chain) {
				t.Errorf("from its file: %v, %v", kept, err)
			}
			got := askSecure(t, s.view.Load(), asker("x.wild.copied.example", dns.TypeTXT), signedAt)
			if p := signer.prove(got); p.answer != "TXT RRSIG" || len(p.deniers) != 1 {
				t.Errorf("after a change: %v", got)
			}
		})
	}
}

// records prints all of a zone in order.
func records(z *zone) (all []string) {
	for _, rr := range z.whole() {
		all = append(all, rr.String())
	}
	slices.Sort(all)
	return all
}

// Of several chains that one is used whose parameters the apex has, and which is
// whole.
func TestPresignedChains(t *testing.T) {
	nsec, _ := presignedText(t, chainNSEC)
	nsec3, _ := presignedText(t, chainNSEC3)
	param := fmt.Sprintf("signed.example. 0 IN NSEC3PARAM 1 0 %d %s\n", presignedIterations, strings.ToUpper(presignedSalt))
	var withoutParam strings.Builder
	for line := range strings.Lines(nsec3) {
		if !strings.Contains(line, "\tNSEC3PARAM\t") {
			withoutParam.WriteString(line)
		}
	}
	hash := func(of string) string {
		h := wire(t, of).hash()
		return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(h[:]))
	}
	other := "signed.example. 0 IN NSEC3PARAM 1 0 0 -\n" + hash("signed.example.") + ".signed.example. 60 IN NSEC3 1 0 0 - " + hash("x.signed.example.") + " A\n"
	for about, tt := range map[string]struct {
		text  string
		nsec3 bool
		size  int
	}{
		"NSEC":                           {nsec, false, 14},
		"NSEC3":                          {nsec3, true, 21},
		"both":                           {nsec + nsec3, true, 21},
		"both, of which one is not yet":  {nsec + withoutParam.String(), false, 14},
		"parameters without a chain":     {nsec + "@ 0 NSEC3PARAM 1 0 7 -\n", false, 14},
		"parameters spelled otherwise":   {withoutParam.String() + param, true, 21},
		"parameters that are being made": {nsec + "@ 0 NSEC3PARAM 1 1 3 ab01\n" + withoutParam.String(), false, 14},
		"another hash":                   {nsec + "@ 0 NSEC3PARAM 2 0 3 ab01\n" + withoutParam.String(), false, 14},
		"two of NSEC3":                   {other + withoutParam.String(), true, 1},
		"none":                           {withoutParam.String(), false, 0},
	} {
		z, err := loadZone(Zone{Name: "signed.example", Text: tt.text})
		if err != nil {
			t.Errorf("%s: %v", about, err)
			continue
		}
		if p := z.presigned; (p.nsec3 != nil) != tt.nsec3 || len(p.chain) != tt.size {
			t.Errorf("%s: NSEC3 %v, %d records", about, p.nsec3, len(p.chain))
		}
	}
}

// When signatures expire is a metric, and a warning once they have; they are given
// out all the same.
func TestPresignedExpiry(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	s, err := New(Config{Listen: []netip.AddrPort{{}}, Zones: testZones()}, slog.New(slog.NewTextHandler(&log, nil)), reg)
	if err != nil {
		t.Fatal(err)
	}
	signer := newPresigner(t, "signed.example", chainNSEC)
	set := func(expires time.Time) {
		t.Helper()
		signer.expires = uint32(expires.Unix())
		if err := s.SetZones(append(testZones(), Zone{Name: "signed.example", Text: signer.sign(presignedPlain)})); err != nil {
			t.Fatal(err)
		}
		if got := value(t, reg, metricExpiry); got != float64(expires.Unix()) {
			t.Errorf("%v, want %v", got, expires.Unix())
		}
		for _, z := range s.Status().Zones {
			if z.Name == "signed.example." != z.SignaturesExpire.Equal(time.Unix(expires.Unix(), 0)) {
				t.Errorf("%+v", z)
			}
		}
	}
	set(time.Unix(1_000_000_000, 0))
	if !strings.Contains(log.String(), "expired signatures") {
		t.Errorf("log %s", log.String())
	}
	got := askSecure(t, s.view.Load(), asker(under("mail"), dns.TypeA), signedAt)
	if len(got.Answer) != 2 {
		t.Errorf("expired: %v", got)
	}
	log.Reset()
	set(time.Now().Add(time.Hour))
	if log.Len() > 0 {
		t.Errorf("log %s", log.String())
	}
	if err := s.SetZones(testZones()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == metricExpiry {
			t.Errorf("left: %v", f)
		}
	}
}

// Keys sort as names do.
func TestSortKey(t *testing.T) {
	names := []name{"\x00"}
	for _, label := range []string{"a", "b", "\x00", "\x01", "\x02", "\x00\x00", "\x01\x01", "a\x00", "a\x01", "ab", "\xff", "*"} {
		for _, n := range names[:min(len(names), 30)] {
			names = append(names, labelled(label, n))
		}
	}
	for _, a := range names {
		for _, b := range names {
			if got, want := cmp.Compare(a.sortKey(), b.sortKey()), compare(a, b); got != want {
				t.Fatalf("%q and %q: %d, want %d", a, b, got, want)
			}
		}
	}
}
