// Package cli is anyedge's command line: it parses flags, wires the parts
// together and knows nothing else.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// command is one subcommand.
type command struct {
	name    string
	summary string
	args    string // usage after the name
	hidden  bool   // not for people
	// run does the work. A usageError makes the exit status 2, any other 1.
	run func(c *invocation) error
}

// invocation is one use of a command.
type invocation struct {
	flags       *flag.FlagSet
	args        []string
	out, errOut io.Writer
}

func commands() []command {
	return []command{
		{name: "pop", args: "--config FILE", summary: "run a node of a point of presence", run: runPop},
		{name: "gslb", args: "--config FILE", summary: "run a DNS node", run: runGSLB},
		{name: "origin", args: "--address IP:PORT", summary: "run a demo origin server", run: runOrigin},
		{name: "lab", args: "[--check]", summary: "run a whole edge on this machine", run: runLab},
		{name: "check", args: "--config FILE [--against-fleet]", summary: "validate config files, and what they would announce", run: runCheck},
		{name: "schema", args: "pop|gslb|lab", summary: "print the JSON Schema of a config file", run: runSchema},
		{name: "status", args: "[--admin IP:PORT]", summary: "show how a node is doing", run: runStatus},
		{name: "reload", args: "[--admin IP:PORT]", summary: "have a node read its config again, and say what it refuses", run: runReload},
		{name: "explain", args: "[--prefix PREFIX] [--admin IP:PORT]", summary: "say why a route is or is not announced", run: runExplain},
		{name: "drain", args: "[--admin IP:PORT]", summary: "take a node, PoP or region out of service", run: runDrain},
		{name: "undrain", args: "[--admin IP:PORT]", summary: "put it back into service", run: runUndrain},
		{name: "override", args: "announce|withdraw|depreference|clear|list [flags]", summary: "overrule a node, PoP, region or the fleet for a while", run: runOverride},
		{name: "steer", args: "--name NAME [--client NETWORK] [--without POP] | list | plan | override only|without|clear|list [flags]", summary: "say why a client gets its DNS answer, show the plan, or overrule it for a while", run: runSteer},
		{name: "rollout", args: "start|status|pause|resume|abort", summary: "take new configs through the fleet, PoP by PoP", run: runRollout},
		{name: "routes", args: "[--admin IP:PORT]", summary: "show what a node announces, to whom, and why not", run: runRoutes},
		{name: "blackhole", args: "add|remove|list [ADDRESS] [--neighbor IP] [--for DURATION]", summary: "have upstreams discard the traffic to one attacked address", run: runBlackhole},
		{name: "neighbor", args: "shutdown|enable ADDRESS [--text TEXT]", summary: "close a session with an upstream router, or open it again", run: runNeighbor},
		{name: "dnssec", args: "status|ds|roll|seen|unsign|sign [ZONE] [flags]", summary: "show the keys of signed zones and the DS records for their parents, or change them", run: runDNSSEC},
		{name: "audit", args: "[--last N] [--since DURATION] [--by PERSON] [--act KIND] [--admin IP:PORT]", summary: "show what operators did to a node", run: runAudit},
		{name: "version", summary: "print the version", run: runVersion},
		{name: "bfd", hidden: true, summary: "the process that BFD runs in, started by \"anyedge pop\" only", run: runBFD},
		{name: "proxy", hidden: true, summary: "the worker, started by \"anyedge pop\" only", run: runWorker},
	}
}

// usageError is a mistake in how a command was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Main runs the command line and returns the process's exit status: 0, 1 when
// the command failed, 2 when it was called wrongly.
func Main(args []string, out, errOut io.Writer) int {
	if len(args) == 0 {
		usage(errOut)
		return 2
	}
	name, args := args[0], args[1:]
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, name) {
		usage(out)
		return 0
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == name })
	if i < 0 {
		fmt.Fprintf(errOut, "anyedge: no command %q; \"anyedge help\" lists them\n", name)
		return 2
	}
	cmd := all[i]
	c := &invocation{flags: flag.NewFlagSet("anyedge "+name, flag.ContinueOnError), args: args, out: out, errOut: errOut}
	c.flags.SetOutput(io.Discard) // what is wrong is printed below, once
	c.flags.Usage = func() {
		c.flags.SetOutput(errOut)
		fmt.Fprintf(errOut, "usage: %s\n\n%s.\n", strings.TrimSpace("anyedge "+name+" "+cmd.args), cmd.summary)
		fmt.Fprintln(errOut)
		c.flags.PrintDefaults()
	}
	err := cmd.run(c)
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(errOut, "anyedge %s: %v\n", name, err)
		return 2
	}
	fmt.Fprintf(errOut, "anyedge %s: %v\n", name, err)
	return 1
}

// parse parses the flags that the command has defined; want is how many other
// arguments it takes.
func (c *invocation) parse(want int) error {
	if err := c.flags.Parse(c.args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if c.flags.NArg() != want {
		return usagef("arguments after the flags: %d, want %d", c.flags.NArg(), want)
	}
	return nil
}

// parseWords parses flags with other words between them, which it returns.
func (c *invocation) parseWords() ([]string, error) {
	var words []string
	for args := c.args; ; {
		if err := c.flags.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, usageError{err}
		}
		if c.flags.NArg() == 0 {
			return words, nil
		}
		words, args = append(words, c.flags.Arg(0)), c.flags.Args()[1:]
	}
}

func usage(w io.Writer) {
	fmt.Fprint(w, "anyedge is an anycast edge: proxy, BGP speaker, GSLB DNS server and tools.\n\nusage: anyedge COMMAND [flags]\n\n")
	for _, c := range commands() {
		if !c.hidden {
			fmt.Fprintf(w, "  %-9s %s\n", c.name, c.summary)
		}
	}
	fmt.Fprint(w, "\n\"anyedge COMMAND -h\" shows a command's flags.\n")
}
