// Benchdns compares "anyedge gslb" as a DNS server with gdnsd, Knot and NSD,
// side by side on this machine: same zone, same queries, two threads each.
//
//	go run ./test/benchdns [--rounds 5] [--seconds 3] [--only anyedge,gdnsd] [--out FILE]
//
// The load is dnsperf with 64 sockets: half of the queries are for names that
// anyedge and gdnsd steer by a map of 4096 client networks, the others for
// addresses, texts, the apex, and names that do not exist; half carry a client
// subnet, and all are spelled in mixed case. Knot and NSD have plain records
// where the others steer, which is less work.
//
// Every measurement starts a fresh server, loads it and stops it. The servers
// take turns, so that a slow minute of the machine hits all of them; the table
// shows medians. The figure that counts is the CPU time of the server's
// processes per query: on a machine that also runs the load, queries per second
// say more about the neighbours.
//
// With root, anyedge-xdp is a node that answers in the network driver, in a network
// namespace behind a veth pair; all other traffic stays on loopback. Whatever ends the program, short of SIGKILL,
// stops what it started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"anyedge/test/lab/dns"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchdns:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	binary  string
	rounds  int
	length  time.Duration
	servers []server
	out     string
}

func parse(args []string, errOut io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("benchdns", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&o.binary, "anyedge", "bin/anyedge", "the binary under test")
	flags.IntVar(&o.rounds, "rounds", 5, "measurements of each server, 1 to 99")
	seconds := flags.Int("seconds", 3, "length of one measurement, 1 to 60")
	only := flags.String("only", "", "servers, separated by commas (default all): anyedge,gdnsd,knot,nsd,anyedge-xdp")
	flags.StringVar(&o.out, "out", "", "also write the table as Markdown to this file")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 || o.rounds > 99 || *seconds < 1 || *seconds > 60 {
		return o, errors.New("--rounds must be 1 to 99, --seconds 1 to 60")
	}
	o.length = time.Duration(*seconds) * time.Second
	o.servers = servers
	if *only == "" {
		return o, nil
	}
	o.servers = nil
	for name := range strings.SplitSeq(*only, ",") {
		at := slices.IndexFunc(servers, func(s server) bool { return s.name == name })
		if at < 0 {
			return o, fmt.Errorf("no server is called %q", name)
		}
		o.servers = append(o.servers, servers[at])
	}
	return o, nil
}

func run(args []string, out, errOut io.Writer) error {
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	// A second signal does not cut the orderly end short, which is bounded.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir, err := os.MkdirTemp("", "anyedge-benchdns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir, o.binary)
	if err != nil {
		return err
	}
	results := make(map[string][]result)
	if missing := dns.Missing(o.binary); missing != nil && slices.ContainsFunc(o.servers, func(s server) bool { return s.name == driver }) {
		fmt.Fprintf(errOut, "%s is left out: it lacks %v\n", driver, missing)
		o.servers = slices.DeleteFunc(slices.Clone(o.servers), func(s server) bool { return s.name == driver })
	}
	for round := range o.rounds {
		for _, s := range o.servers {
			r, err := w.measure(ctx, s, o.length)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			results[s.name] = append(results[s.name], r)
			fmt.Fprintf(errOut, "round %d  %-8s %8.0f/s %6.2f µs\n", round+1, s.name, r.rate, r.cost)
		}
	}
	table := report(o, results)
	fmt.Fprint(out, table)
	if o.out == "" {
		return nil
	}
	return os.WriteFile(o.out, []byte(table), 0o644)
}
