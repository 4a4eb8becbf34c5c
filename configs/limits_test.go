package configs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestBounds feeds each parser what would cost too much and wants one clear
// problem.
func TestBounds(t *testing.T) {
	many := strings.Repeat("{address: 10.0.0.1:80},", 1000)
	for _, c := range []struct{ name, text, want string }{
		{"size", "# " + strings.Repeat("x", maxFileBytes), "x:1:1: larger than 4MiB"},
		{"flow depth", strings.Repeat("[", 1_000_000), "nested deeper than 64"},
		{"block depth", deepBlock(1000), "nested deeper than 64"},
		{"aliases", "pools:\n- &p {name: a, backends: [" + many + "]}\n" + strings.Repeat("- *p\n", 200), "more than 262144 keys and list elements"},
		{"aliases to unknown keys", "pools: [&p {" + strings.Repeat("k: 1,", 5000) + "}" + strings.Repeat(",*p", 100_000) + "]", "too many problems"},
		{"an alias inside its own anchor", "pools: &p [{backends: *p}, *p]", "pools[1]: want a mapping, got a list"},
		{"many problems in a list", "pools: [" + strings.Repeat("{},", 5000) + "]", "too many problems"},
		{"many problems", strings.Repeat("a: 1\n", 5000), "too many problems"},
		{"many lines in one text", "node: {name: \"" + strings.Repeat("\\n", 100_000) + "\"}", "control characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParsePop("x", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %.300v, want %q", err, c.want)
			}
			var problems Errors
			if !errors.As(err, &problems) || len(problems) > maxErrors+1 {
				t.Errorf("%d problems, a %T", len(problems), err)
			}
			checkLocated(t, problems, []byte(c.text))
			for _, p := range problems {
				if len(p.Error()) > 500 {
					t.Fatalf("a problem of %d bytes: %.600s", len(p.Error()), p)
				}
			}
		})
	}
}

func deepBlock(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

// TestManyBackends holds that the bounds are far from real configs.
func TestManyBackends(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("node: {name: fra-1, pop: fra}\nfleet: {memory: true}\nlisteners: [{name: web, address: 192.0.2.1:80, clear: true}]\nroutes: [{pool: p0}]\npools:\n")
	for pool := range 20 {
		fmt.Fprintf(&b, "- name: p%d\n  backends:\n", pool)
		for i := range 1000 {
			fmt.Fprintf(&b, "  - {address: 10.%d.%d.%d:8080, weight: 2, zone: a}\n", pool, i/250, i%250)
		}
	}
	p, err := ParsePop("many.yaml", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Pools[19].Backends); n != 1000 {
		t.Errorf("%d backends in the last pool, want 1000", n)
	}
}

// TestJSON reads the same config as YAML and as Terraform's jsonencode writes
// it.
func TestJSON(t *testing.T) {
	p, err := ParsePop("pop.json", []byte("{\"node\":{\"name\":\"fra-1\",\"pop\":\"fra\",\"region\":null,\"latitude\":5.011e1},"+
		"\"fleet\":{\"memory\":true,\"consul\":null},\r\n\t\"listeners\":[{\"name\":\"web\",\"address\":\"192.0.2.1:80\",\"clear\":true,\"trusted_hops\":[]}],"+
		"\"routes\":[{\"match\":{\"path\":\"\\/a\\u0026b\"},\"pool\":\"api\"}],\"pools\":[{\"name\":\"api\",\"inventory\":\"api\",\"backends\":[]}],\"bgp\":null}"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Node.Latitude != 50.11 || p.Routes[0].Match.Path != "/a&b" || p.BGP != nil {
		t.Errorf("got %+v", p)
	}
	checkRoundTrip(t, p, ParsePop)
}

func TestRoundTripOfReference(t *testing.T) {
	p, err := LoadPop(referenceFile(KindPop))
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, p, ParsePop)
	g, err := LoadGSLB(referenceFile(KindGSLB))
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, g, ParseGSLB)
	checkRoundTrip(t, DefaultLab(), ParseLab)
}

func TestErrorsUnwrap(t *testing.T) {
	_, err := ParseLab("lab.yaml", []byte("rate: 0\nzone: a..b\n"))
	var first Error
	if !errors.As(err, &first) || first.Line != 1 || first.Column != 7 || first.Path != "rate" || first.File != "lab.yaml" {
		t.Errorf("got %+v", first)
	}
}
