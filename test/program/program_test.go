package program

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestComparisonFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                          "",
		"--rounds 99 --seconds 60":  "",
		"--rounds 0":                "--rounds must be 1 to 99",
		"--rounds 100":              "--rounds must be 1 to 99",
		"--seconds 0":               "--seconds 1 to 60",
		"--seconds 61":              "--seconds 1 to 60",
		"--rounds 2 more":           `unexpected argument "more"`,
		"--nonsense":                "not defined",
		"--anyedge x --out table.m": "",
	} {
		var c Comparison
		_, parse := c.Flags("bench", "server", 3, io.Discard)
		err := parse(strings.Fields(args))
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	var c Comparison
	_, parse := c.Flags("bench", "server", 3, io.Discard)
	if err := parse([]string{"--rounds", "2", "--out", "f"}); err != nil || c != (Comparison{"bin/anyedge", 2, 3 * time.Second, "f"}) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestChoose(t *testing.T) {
	all := []string{"a", "b", "c"}
	self := func(s string) string { return s }
	for list, want := range map[string]string{"": "a,b,c", "b": "b", "c,a": "a,c"} {
		if got, err := Choose(list, all, self); err != nil || Names(got, self) != want {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	if got, err := Choose("a,d", all, self); err == nil || err.Error() != `nothing is called "d"; there are a,b,c` {
		t.Errorf("%v, %v", got, err)
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "table.md")
	if err := Report(&out, "text", file, "markdown"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "markdown" || out.String() != "text" {
		t.Errorf("%q, %q, %v", out.String(), got, err)
	}
	if err := Report(&out, "", "", "markdown"); err != nil {
		t.Error(err)
	}
}
