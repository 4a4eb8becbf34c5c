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
		`\| answers while rebuilding: p50, p99, p99\.9, most \| [\d.]+, [\d.]+, [\d.]+, [\d.]+ ms of \d+, 0 lost; [\d.]+ % left out, when the host had a core \| p99\.9 ≤ 1 ms `,
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

func TestMerged(t *testing.T) {
	ms := int64(time.Millisecond)
	away := merged([]interval{{40 * ms, 50 * ms}, {10 * ms, 12 * ms}, {41 * ms, 44 * ms}, {56 * ms, 57 * ms}})
	if want := []interval{{10 * ms, 17 * ms}, {40 * ms, 55 * ms}, {56 * ms, 62 * ms}}; !slices.Equal(away, want) {
		t.Errorf("got %v, want %v", away, want)
	}
	for _, test := range []struct {
		from, to int64
		want     bool
	}{{0, 9, false}, {0, 10, true}, {17, 18, true}, {18, 39, false}, {18, 41, true}, {55, 55, true}, {62, 70, true}, {63, 70, false}, {0, 99, true}} {
		if got := touches(away, interval{test.from * ms, test.to * ms}); got != test.want {
			t.Errorf("%d to %d ms: %v", test.from, test.to, got)
		}
	}
}

// A watch that is told to stop ends, and what it found is in order.
func TestWatch(t *testing.T) {
	stop := watch()
	time.Sleep(20 * time.Millisecond) // some beats
	if away := stop(); !slices.IsSortedFunc(away, func(a, b interval) int { return int(a.from - b.to) }) {
		t.Errorf("%v", away)
	}
}
