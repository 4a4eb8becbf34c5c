package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"anyedge/configs"
)

// call runs a command line.
func call(args ...string) (status int, out, errOut string) {
	var o, e bytes.Buffer
	status = Main(args, &o, &e)
	return status, o.String(), e.String()
}

// write makes a file in a folder of the test's and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitStatusAndWhereItIsSaid(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	for _, c := range []struct {
		args        []string
		status      int
		out, errOut string // parts of what is printed; "" is nothing at all
	}{
		{nil, 2, "", "usage: anyedge COMMAND"},
		{[]string{"help"}, 0, "usage: anyedge COMMAND", ""},
		{[]string{"-h"}, 0, "usage: anyedge COMMAND", ""},
		{[]string{"--help"}, 0, "usage: anyedge COMMAND", ""},
		{[]string{"nonsense"}, 2, "", `anyedge: no command "nonsense"; "anyedge help" lists them`},
		{[]string{""}, 2, "", `no command ""`},
		{[]string{"check", "-h"}, 0, "", "usage: anyedge check --config FILE [--against-fleet]\n\nvalidate config files, and what they would announce.\n"},
		{[]string{"check", "--nonsense"}, 2, "", "anyedge check: flag provided but not defined: -nonsense\n"},
		{[]string{"check", "--config"}, 2, "", "flag needs an argument: -config"},
		{[]string{"check"}, 2, "", "anyedge check: --config is required\n"},
		{[]string{"pop"}, 2, "", "anyedge pop: --config is required\n"},
		{[]string{"gslb"}, 2, "", "anyedge gslb: --config is required\n"},
		{[]string{"check", "some.yaml"}, 2, "", "arguments after the flags: 1, want 0"},
		{[]string{"version", "now"}, 2, "", "arguments after the flags: 1, want 0"},
		{[]string{"check", "--config", missing}, 1, "", "missing.yaml: no such file"},
		{[]string{"pop", "--config", missing}, 1, "", "anyedge pop: "},
		{[]string{"gslb", "--config", missing}, 1, "", "anyedge gslb: "},
		{[]string{"lab", "--config", missing}, 1, "", "anyedge lab: "},
		{[]string{"lab", "--network", "10.0.0.0/16"}, 2, "", "--network 10.0.0.0/16 is not a /16 inside 127.0.0.0/8"},
		{[]string{"lab", "--network", "127.1.0.0/24"}, 2, "", "is not a /16"},
		{[]string{"lab", "--network", "what"}, 2, "", "is not a /16"},
		{[]string{"origin", "--address", "nowhere"}, 2, "", "invalid value"},
		{[]string{"origin", "--cert", missing}, 2, "", "anyedge origin: --cert and --key go together\n"},
		{[]string{"origin", "--cert", missing, "--key", missing}, 1, "", "anyedge origin: "},
		{[]string{"status", "--admin", "localhost"}, 2, "", "invalid value"},
		{[]string{"drain", "--for", "-5m"}, 2, "", "negative"},
		{[]string{"drain", "--for", "5"}, 2, "", "not a duration"},
		{[]string{"schema"}, 2, "", "arguments after the flags: 0, want 1"},
		{[]string{"schema", "nonsense"}, 2, "", "anyedge schema: "},
		{[]string{"bfd"}, 1, "", `started without an agent; run "anyedge pop"`},
		{[]string{"proxy"}, 1, "", `started without an agent; run "anyedge pop"`},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			status, out, errOut := call(c.args...)
			if status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			for _, s := range []struct{ name, got, want string }{{"standard output", out, c.out}, {"standard error", errOut, c.errOut}} {
				if !strings.Contains(s.got, s.want) || (s.got == "") != (s.want == "") {
					t.Errorf("%s %q, want %q in it", s.name, s.got, s.want)
				}
			}
		})
	}
}

func TestUsageListsWhatPeopleMayCall(t *testing.T) {
	_, out, _ := call("help")
	for _, c := range commands() {
		if listed := strings.Contains(out, "\n  "+c.name+" "); listed == c.hidden {
			t.Errorf("%s: listed %v, hidden %v", c.name, listed, c.hidden)
		}
		if c.hidden {
			continue
		}
		status, _, errOut := call(c.name, "-h")
		if status != 0 || !strings.HasPrefix(errOut, "usage: anyedge "+c.name) || !strings.Contains(errOut, c.summary) {
			t.Errorf("%s -h: status %d, %q", c.name, status, errOut)
		}
	}
}

func TestMistakeIsSaidOnce(t *testing.T) {
	_, _, errOut := call("check", "--nonsense")
	if n := strings.Count(errOut, "flag provided but not defined"); n != 1 {
		t.Errorf("said %d times:\n%s", n, errOut)
	}
}

func TestCheckNamesTheKindOfAValidConfig(t *testing.T) {
	dir := t.TempDir()
	for kind, text := range map[string]string{
		configs.KindLab: "rate: 100\n",
		configs.KindGSLB: "node: {name: ns1}\nfleet: {memory: true}\nlisten: [\"127.0.0.1:5300\"]\n" +
			"zones: [{name: edge.example, file: edge.zone}]\n",
		configs.KindPop: minimalPop,
	} {
		write(t, dir, "edge.zone", "@ IN SOA a b 1 2 3 4 5\n@ IN NS ns.elsewhere.example.\n")
		file := write(t, dir, kind+".yaml", text)
		status, out, errOut := call("check", "--config", file)
		if want := file + ": a valid " + kind + " config\n"; status != 0 || out != want || errOut != "" {
			t.Errorf("status %d, %q, %q; want %q", status, out, errOut, want)
		}
	}
}

// What a DNS node's config names is read too.
func TestCheckReadsZones(t *testing.T) {
	dir := t.TempDir()
	file := write(t, dir, "gslb.yaml", "node: {name: ns1}\nfleet: {memory: true}\nlisten: [\"127.0.0.1:5300\"]\nzones: [{name: edge.example, file: edge.zone}]\n")
	zone := write(t, dir, "edge.zone", "@ IN SOA a b 1 2 3 4 5\n")
	status, out, errOut := call("check", "--config", file)
	if want := zone + ": no NS record at edge.example.\nanyedge check: " + file + ": not valid: what it names is not\n"; status != 1 || out != "" || errOut != want {
		t.Errorf("status %d, %q, %q; want %q", status, out, errOut, want)
	}
}

// The reference files are valid but for the secrets, which nobody else has.
func TestCheckOfTheReferenceFiles(t *testing.T) {
	for _, kind := range []string{configs.KindPop, configs.KindGSLB, configs.KindLab} {
		status, out, errOut := call("check", "--config", "../../configs/reference/"+kind+".yaml")
		if kind == configs.KindLab && (status != 0 || !strings.HasSuffix(out, "a valid lab config\n")) {
			t.Errorf("lab: status %d, %q, %q", status, out, errOut)
		}
		lines := strings.Split(strings.TrimSpace(errOut), "\n")
		for _, line := range lines[:len(lines)-1] {
			if !strings.Contains(line, "no such file") {
				t.Errorf("%s: %s", kind, line)
			}
		}
	}
}

func TestCheckPrintsEveryProblem(t *testing.T) {
	file := write(t, t.TempDir(), "bad.yaml", strings.NewReplacer(
		"pool: web", "pool: nowhere", "127.0.0.1:8699", "here", "pop: fra", "pop: f r a").Replace(minimalPop))
	status, out, errOut := call("check", "--config", file)
	if status != 1 || out != "" {
		t.Errorf("status %d, output %q", status, out)
	}
	lines := strings.Split(strings.TrimSpace(errOut), "\n")
	for i, want := range []string{"node.pop: ", "routes[0].pool: ", "admin.address: "} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], file+":") || !strings.Contains(lines[i], want) {
			t.Errorf("line %d of\n%swant %q with its place", i, errOut, want)
		}
	}
	if last := lines[len(lines)-1]; last != "anyedge check: "+file+": not valid, problems: 3" {
		t.Errorf("last line %q", last)
	}
}

// A daemon refuses a bad config just as check does, before it opens anything.
func TestDaemonRefusesABadConfig(t *testing.T) {
	file := write(t, t.TempDir(), "bad.yaml", strings.Replace(minimalPop, "pool: web", "pool: nowhere", 1))
	status, _, errOut := call("pop", "--config", file)
	if status != 1 || !strings.Contains(errOut, file+":") || !strings.Contains(errOut, "routes[0].pool: ") {
		t.Errorf("status %d, %q", status, errOut)
	}
}

// A node whose admin address is taken says so instead of running without.
func TestDaemonNeedsItsAdminAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	write(t, dir, "edge.zone", "$ORIGIN edge.example.\n$TTL 60\n@ IN SOA ns1 h 1 2 3 4 5\n@ IN NS ns1\nns1 IN A 192.0.2.1\n")
	for kind, text := range map[string]string{
		"pop": strings.Replace(minimalPop, "127.0.0.1:8699", l.Addr().String(), 1),
		"gslb": "node: {name: ns1}\nfleet: {memory: true}\nlisten: [\"127.0.0.1:5300\"]\n" +
			"zones: [{name: edge.example, file: edge.zone}]\nadmin: {address: \"" + l.Addr().String() + "\"}\n",
	} {
		status, _, errOut := call(kind, "--config", write(t, dir, kind+".yaml", text))
		if status != 1 || !strings.Contains(errOut, "anyedge "+kind+": admin API: ") || !strings.Contains(errOut, "address already in use") {
			t.Errorf("%s: status %d, %q", kind, status, errOut)
		}
	}
}

func TestSchemaIsOfTheKindAskedFor(t *testing.T) {
	seen := make(map[string]bool)
	for _, kind := range []string{configs.KindPop, configs.KindGSLB, configs.KindLab} {
		status, out, errOut := call("schema", kind)
		var schema map[string]any
		if err := json.Unmarshal([]byte(out), &schema); status != 0 || errOut != "" || err != nil {
			t.Errorf("%s: status %d, %q, %v", kind, status, errOut, err)
		}
		committed, err := os.ReadFile("../../configs/schema/" + kind + ".schema.json")
		if err != nil || string(committed) != out {
			t.Errorf("%s differs from the committed schema (%v)", kind, err)
		}
		seen[out] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d schemas for three kinds", len(seen))
	}
}

func TestVersionIsOneLine(t *testing.T) {
	status, out, errOut := call("version")
	words := strings.Fields(out)
	if status != 0 || errOut != "" || strings.Count(out, "\n") != 1 || len(words) < 3 || words[0] != "anyedge" || !strings.HasPrefix(words[len(words)-1], "go1.") && len(words) == 3 {
		t.Errorf("status %d, %q, %q", status, out, errOut)
	}
}
