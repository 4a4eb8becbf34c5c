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
	"fmt"
	"io"
	"os"
	"slices"

	"anyedge/test/lab/dns"
	"anyedge/test/program"
)

func main() { program.Main("benchdns", run) }

// options are the flags.
type options struct {
	program.Comparison
	servers []server
}

func parse(args []string, errOut io.Writer) (options, error) {
	var o options
	flags, parse := o.Flags("benchdns", "server", 3, errOut)
	only := flags.String("only", "", "servers, separated by commas (default all): "+program.Names(servers, server.String))
	if err := parse(args); err != nil {
		return o, err
	}
	var err error
	o.servers, err = program.Choose(*only, servers, server.String)
	return o, err
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	o, err := parse(args, errOut)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "anyedge-benchdns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(dir, o.Binary)
	if err != nil {
		return err
	}
	results := make(map[string][]result)
	if missing := dns.Missing(o.Binary); missing != nil && slices.ContainsFunc(o.servers, func(s server) bool { return s.name == driver }) {
		fmt.Fprintf(errOut, "%s is left out: it lacks %v\n", driver, missing)
		o.servers = slices.DeleteFunc(slices.Clone(o.servers), func(s server) bool { return s.name == driver })
	}
	for round := range o.Rounds {
		for _, s := range o.servers {
			r, err := w.measure(ctx, s, o.Length)
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
	return program.Report(out, table, o.Out, table)
}
