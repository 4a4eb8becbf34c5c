package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const configs = "../.." // the folder of package configs

// TestUpToDate fails when a struct, tag or comment has changed since the last
// "go generate".
func TestUpToDate(t *testing.T) {
	src, err := readSource(configs)
	if err != nil {
		t.Fatal(err)
	}
	for file, root := range outputs {
		want, err := src.schema(root)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(configs, file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is out of date; run go generate ./configs", file)
		}
	}
}

// TestCommentsStateDefaults compares each default tag with the comment that
// operators read in their editor.
func TestCommentsStateDefaults(t *testing.T) {
	src, err := readSource(configs)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, decl := range src.structs {
		for _, f := range decl.fields {
			if f.doc == "" {
				t.Errorf("%s.%s has no comment", name, f.name)
			}
			def := f.tag.Get("default")
			if def == "" {
				continue
			}
			seen++
			plain := strings.ReplaceAll(f.doc, `"`, "")
			if !strings.Contains(plain, "Default "+def) && !strings.Contains(plain, def+" (default)") {
				t.Errorf("the comment of %s.%s does not state its default, %s: %s", name, f.name, def, f.doc)
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d defaults found; is the source read?", seen)
	}
}

// TestRun writes the schemas of a small package.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "schema"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("a.go", "package a\n// Pop is one.\ntype Pop struct {\n// N counts.\nN []int `yaml:\"n\" required:\"true\"`\n}\ntype GSLB struct{}\ntype Lab struct{}\n")
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "schema/pop.schema.json"))
	if err != nil || !strings.Contains(string(got), `"minItems": 1`) || !strings.Contains(string(got), "N counts.") {
		t.Errorf("got %s, %v", got, err)
	}
	write("a.go", "package a\ntype Pop struct {\nN chan int `yaml:\"n\"`\n}\n")
	if err := run(dir); err == nil {
		t.Error("a channel has a schema")
	}
}
