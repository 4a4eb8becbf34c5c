package xdp

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// section returns what the object says of itself.
func section(t *testing.T, name string) string {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	s := f.Section(name)
	if s == nil {
		t.Fatalf("the object has no section %s", name)
	}
	data, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(data), "\x00 ")
}

func TestObjectIsOfTheSource(t *testing.T) {
	source, err := os.ReadFile("bpf/dns.c")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := section(t, "source"), fmt.Sprintf("%x", sha256.Sum256(source)); got != want {
		t.Errorf("made of %s, the source is %s: run make xdp-object", got, want)
	}
}

func TestObjectIsWhatTheCompilerMakes(t *testing.T) {
	for _, tool := range []string{"clang", "llvm-strip", "/usr/include/bpf/bpf_helpers.h"} {
		_, err := exec.LookPath(tool)
		if _, there := os.Stat(tool); err != nil && there != nil {
			t.Skipf("no %s here", tool)
		}
	}
	version, err := exec.Command("clang", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if made := section(t, "compiler"); !strings.Contains(string(version), "version "+made) {
		t.Skipf("made by clang %s, here is %s", made, version)
	}
	path := filepath.Join(t.TempDir(), "dns.o")
	if out, err := exec.Command("bpf/build.sh", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, object) {
		t.Errorf("the object differs from what its source compiles to: run make xdp-object")
	}
}
