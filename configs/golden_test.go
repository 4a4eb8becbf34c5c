package configs

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestBadConfigs reads each testdata/bad/KIND-*.{yaml,json} and compares all
// problems, places included, with the .want file beside it.
func TestBadConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*-*.*[nl]")
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			kind, _, _ := strings.Cut(name, "-")
			err = parseKind(t, kind, name, data)
			var problems Errors
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want Errors", err)
			}
			checkLocated(t, problems, data)
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func parseKind(t *testing.T, kind, name string, data []byte) error {
	t.Helper()
	for _, k := range kinds {
		if k.name == kind {
			_, err := k.parse(name, data)
			return err
		}
	}
	t.Fatalf("no kind %q", kind)
	return nil
}

// checkLocated requires every problem to name a place that the text has.
func checkLocated(t *testing.T, problems Errors, data []byte) {
	t.Helper()
	if len(problems) == 0 {
		t.Error("an error without problems")
	}
	lines := 2 // the parser may report the end of the text on a line of its own
	for _, r := range string(data) {
		if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
			lines++
		}
	}
	for _, p := range problems {
		if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" || p.File == "" {
			t.Errorf("not located: %+v", p)
		}
		if strings.ContainsAny(p.Error(), "\n\r\x00") {
			t.Errorf("not one line: %q", p.Error())
		}
	}
}
