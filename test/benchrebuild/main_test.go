package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"anyedge/gslb/steer"
)

// The test's binary is also the program, so that it can start its parts.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "--part") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestRunSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("a second of load")
	}
	var out bytes.Buffer
	args := []string{"--divide", "200", "--seconds", "1", "--rate", "500", "--rebuilds", "3"}
	if err := run(t.Context(), args, nil, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`^5 PoPs, 50 names, 5000 client networks\.`,
		`\| rebuild on one core, a PoP changed: median, slowest \| 0\.\d\d s, 0\.\d\d s \| ≤ 2 s met \|`,
		`\| most memory, rebuilding while serving \| \d+ MB \| ≤ 1 GB met \|`,
		`\| answers while rebuilding: p50, p99, p99\.9, most \| [\d.]+, [\d.]+, [\d.]+, [\d.]+ ms of 500, 0 lost \| p99\.9 ≤ 1 ms `,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{{"--rebuilds", "1"}, {"--seconds", "0"}, {"--rate", "99"}, {"--divide", "0"}, {"x"}, {"--nonsense"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

// The world is one that the steering takes, in order already, and each rebuild
// has something to do.
func TestWorld(t *testing.T) {
	in := input(size{pops: 16, names: 20, networks: 2000})
	if !slices.IsSortedFunc(in.Clients, steer.CompareClients) {
		t.Error("the clients are not in order")
	}
	for i := range 4 {
		before := in.Names[len(in.Names)-1].Name
		change(&in, i)
		if in.Pops[i].Drained != true || (in.Names[len(in.Names)-1].Name == before) != keepsNames(i) {
			t.Errorf("change %d: %v, %s", i, in.Pops[i].Drained, in.Names[len(in.Names)-1].Name)
		}
		if _, err := steer.Build(in); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLatencies(t *testing.T) {
	var l latencies
	for i := range 2000 {
		l = append(l, time.Duration(i+1)*time.Microsecond)
	}
	l = append(l, lateAfter)
	if got, want := l.String(), "1.001, 1.981, 1.999, 1000.000 ms of 2001, 1 lost"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if (latencies)(nil).at(0.5) != 0 {
		t.Error("nothing took time")
	}
}
