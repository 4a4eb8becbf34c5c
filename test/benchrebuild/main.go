// Benchrebuild measures what a change in the fleet costs a DNS node at the size
// that the steering is made for: 1,000 PoPs, 10,000 steered names and 1,000,000
// client networks, all of them in a plan.
//
//	go run ./test/benchrebuild [--rebuilds 6] [--seconds 15] [--rate 4000] [--out FILE]
//
// Two processes are measured, one after the other. The first has one core
// (GOMAXPROCS=1, and the kernel keeps it on one): how long the whole way from a
// changed PoP to a view that is served takes, and how much memory the process had
// at most, with its input. The second serves on as many cores as there are, and
// rebuilds again and again, while this program asks it: an open loop of queries
// at a fixed rate, each timed from just before it is sent to when the kernel has
// the answer, so that waiting for a core of its own does not count against the
// server, and a slow answer holds up no later query. Before that, the same
// without rebuilding. Queries in whose time the host of a virtual machine had one
// of its cores do not count; how many, is said.
//
// Every second rebuild also changes the set of steered names, for which all of
// them are packed anew.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"anyedge/internal/daemon"
	"anyedge/test/program"
)

// The bars.
const (
	maxBuild  = 2 * time.Second
	maxMemory = 1 << 30
	maxSlow   = time.Millisecond // at p99.9
)

func main() {
	program.Main("benchrebuild", func(ctx context.Context, args []string, out, errOut io.Writer) error {
		return run(ctx, args, os.Stdin, out, errOut)
	})
}

// options are the flags.
type options struct {
	size     size
	rebuilds int
	length   time.Duration
	rate     int
	out      string
	part     string // of a child: "build" or "serve"
}

func parse(args []string, errOut io.Writer) (options, error) {
	o := options{size: full}
	flags := flag.NewFlagSet("benchrebuild", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.IntVar(&o.rebuilds, "rebuilds", 6, "rebuilds on one core, 2 to 100")
	seconds := flags.Int("seconds", 15, "length of the load, 1 to 300")
	flags.IntVar(&o.rate, "rate", 4000, "queries per second, 100 to 20000")
	flags.StringVar(&o.out, "out", "", "also write the table as Markdown to this file")
	flags.StringVar(&o.part, "part", "", "for the program itself: the process to be")
	divide := flags.Int("divide", 1, "for a test of the program itself: part of the size, 1 to 1000")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.rebuilds < 2 || o.rebuilds > 100, *seconds < 1 || *seconds > 300, o.rate < 100 || o.rate > 20000, *divide < 1 || *divide > 1000:
		return o, errors.New("--rebuilds must be 2 to 100, --seconds 1 to 300, --rate 100 to 20000")
	}
	o.length = time.Duration(*seconds) * time.Second
	o.size = size{full.pops / *divide, full.names / *divide, full.networks / *divide}
	return o, nil
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) error {
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	switch o.part {
	case "build":
		return build(ctx, o, out)
	case "serve":
		return serve(ctx, o, in, out)
	}
	one, err := startPart(args, "build", "GOMAXPROCS=1")
	if err != nil {
		return err
	}
	alone, err := one.report(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(errOut, "one core: %v\n", alone)

	many, err := startPart(args, "serve")
	if err != nil {
		return err
	}
	defer many.stop()
	var address netip.AddrPort
	if err := many.next(ctx, &address); err != nil {
		return err
	}
	p, err := newProber(address, o)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.run(ctx, time.Second); err != nil { // to warm up
		return err
	}
	quiet, err := p.run(ctx, o.length)
	if err != nil {
		return err
	}
	fmt.Fprintf(errOut, "quiet: %v\n", quiet)
	if _, err := io.WriteString(many.stdin, "go\n"); err != nil {
		return err
	}
	busy, err := p.run(ctx, o.length)
	if err != nil {
		return err
	}
	fmt.Fprintf(errOut, "rebuilding: %v\n", busy)
	many.stdin.Close()
	serving, err := many.report(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(errOut, "while serving: %v\n", serving)
	table := render(o, alone, serving, quiet, busy)
	return program.Report(out, table, o.out, table)
}

// part is a child process that speaks JSON lines.
type part struct {
	child *daemon.Child
	stdin io.WriteCloser
	lines chan []byte
}

// startPart runs this program as one of its parts.
func startPart(args []string, name string, env ...string) (*part, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append(slices.Clone(args), "--part", name)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	child, err := daemon.Start(cmd)
	if err != nil {
		return nil, err
	}
	p := &part{child, stdin, make(chan []byte, 16)}
	go func() { // ends with the child
		defer close(p.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.lines <- slices.Clone(lines.Bytes())
		}
	}()
	return p, nil
}

// next reads the next thing that the child says.
func (p *part) next(ctx context.Context, into any) error {
	timeout := time.NewTimer(2 * time.Minute)
	defer timeout.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return errors.New("a part has ended without a result")
		}
		return json.Unmarshal(line, into)
	case <-timeout.C:
		return errors.New("a part does not come to an end")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// report reads the child's result and ends it.
func (p *part) report(ctx context.Context) (r result, err error) {
	defer p.stop()
	return r, p.next(ctx, &r)
}

func (p *part) stop() {
	p.stdin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p.child.Stop(ctx)
}

// render is a Markdown table of the figures and the bars.
func render(o options, alone, serving result, quiet, busy asked) string {
	var b strings.Builder
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // a report without it is one too
	fmt.Fprintf(&b, "%d PoPs, %d names, %d client networks. %d cores, Linux %s, %s. %d queries/s for %v each. Measured on %s.\n\n",
		o.size.pops, o.size.names, o.size.networks, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), o.rate, o.length, time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| figure | measured | bar |\n| :--- | ---: | :--- |\n")
	// A bar that is missed says nothing where others had the cores.
	verdict := func(text string, met, fit bool) string {
		switch {
		case met:
			return text + " met"
		case !fit:
			return text + " no verdict: the machine was busy with other things"
		}
		return text + " missed"
	}
	row := func(figure, value, bar string) { fmt.Fprintf(&b, "| %s | %s | %s |\n", figure, value, bar) }
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
	same, changed := those(alone.Took, true), those(alone.Took, false)
	slowest, cpu := slices.Max(alone.Took), slices.Max(alone.CPU)
	had := slowest < cpu*5/4 // the core for itself
	row("rebuild on one core, a PoP changed: median, slowest", seconds(median(same))+", "+seconds(slices.Max(same)), verdict("≤ 2 s", slices.Max(same) <= maxBuild, had))
	row("the same with packing all names anew", seconds(median(changed))+", "+seconds(slices.Max(changed)), verdict("≤ 2 s", slices.Max(changed) <= maxBuild, had))
	row("most CPU time of any of these", seconds(cpu), verdict("≤ 2 s", cpu <= maxBuild, true))
	row("most memory, rebuilding on one core", fmt.Sprintf("%d MB", alone.Peak>>20), verdict("≤ 1 GB", alone.Peak <= maxMemory, true))
	row("most memory, rebuilding while serving", fmt.Sprintf("%d MB", serving.Peak>>20), verdict("≤ 1 GB", serving.Peak <= maxMemory, true))
	row("rebuilds while serving", fmt.Sprintf("%d, median %s", len(serving.Took), seconds(median(slices.Sorted(slices.Values(serving.Took))))), "")
	row("answers without rebuilding: p50, p99, p99.9, most", quiet.String(), "")
	row("answers while rebuilding: p50, p99, p99.9, most", busy.String(), verdict("p99.9 ≤ 1 ms", busy.at(0.999) <= maxSlow, quiet.at(0.999) <= maxSlow))
	return b.String()
}
