package configs

import (
	"os"
	"strings"
	"testing"
)

// The examples in the operators' pages are configs, or parts of one.
func TestExamplesInTheDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = "node: {name: ns-1}\nfleet: {memory: true}\nlisten: [\"192.0.2.53:53\"]\n"
	const keys = "keys: [{name: copies.example, secret_file: copies.key}]\n"
	examples := strings.Split(string(text), "```yaml\n")[1:]
	if len(examples) < 3 {
		t.Fatalf("only %d examples", len(examples))
	}
	for i, example := range examples {
		example, _, _ = strings.Cut(example, "```")
		if !strings.Contains(example, "node:") {
			example = head + example
		}
		if !strings.Contains(example, keys) {
			example = keys + example
		}
		if _, err := ParseGSLB("dns.md", []byte(example)); err != nil {
			t.Errorf("example %d: %v\n%s", i+1, err, example)
		}
	}
}
