// Lab runs a whole edge in network namespaces of this machine: PoPs with nodes
// behind real FRR and BIRD routers, a transit core, a real Consul, DNS, and
// clients in several places. It needs root; package edge says what else.
//
//	go run ./test/lab run      # bring it up, say what to try, take it away at the end, even after a SIGKILL
//	go run ./test/lab up       # bring it up and leave it
//	go run ./test/lab status   # sessions, nodes, and who serves whom
//	go run ./test/lab exec paris curl -sk https://192.0.2.1/
//	go run ./test/lab play kill-agent iad-1
//	go run ./test/lab capture fra-1 port 179
//	go run ./test/lab down     # take everything away, also after a crash
//
// Without a command it prints this and the events that it can play.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"anyedge/test/lab/edge"
	"anyedge/test/lab/topology"
)

func main() { edge.Main("lab", run) }

// downTimeout bounds the end of a lab.
const downTimeout = 20 * time.Second

const usage = `usage: lab [flags] COMMAND
  run                        bring a lab up, say what to try, take it away at the end
  up | down                  bring it up and leave it | take it away
  status                     sessions, nodes, and who serves whom
  exec MACHINE [COMMAND...]  run a command on a machine (default: a shell)
  router MACHINE COMMAND...  ask a router's own daemon: vtysh's or birdc's language
  capture END [FILTER...]    tcpdump to a file of the run folder, until interrupted
  play EVENT [ARGUMENT...]   make something happen:
`

// lab is one call of the command.
type lab struct {
	options edge.Options
	out     io.Writer
}

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	c := lab{out: out, options: edge.Options{
		Topology: topology.Default(), Prefix: edge.DefaultPrefix,
		Log: slog.New(slog.NewTextHandler(errOut, nil)),
	}}
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&c.options.Binary, "anyedge", "bin/anyedge", "the product")
	flags.StringVar(&c.options.Consul, "consul", ".cache/consul", "a Consul server")
	flags.StringVar(&c.options.Prefix, "prefix", edge.DefaultPrefix, "begins the names of the namespaces")
	flags.BoolFunc("bfd", fmt.Sprintf("BFD of %d times %v between the nodes and their routers (with run and up)", topology.DefaultBFD.Multiplier, topology.DefaultBFD.Interval), func(s string) error {
		on, err := strconv.ParseBool(s)
		if on {
			c.options.Topology.BFD = topology.DefaultBFD
		}
		return err
	})
	flags.Usage = func() {
		fmt.Fprint(errOut, usage)
		for _, e := range events {
			fmt.Fprintf(errOut, "    %-24s %s\n", e.name+" "+e.arguments, e.doc)
		}
		fmt.Fprintln(errOut, "flags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	command, rest := flags.Arg(0), flags.Args()[min(1, flags.NArg()):]
	switch command {
	case "run", "up", "down":
		release, err := edge.Claim(c.options.Prefix)
		if err != nil {
			return err
		}
		defer release()
	case "status", "exec", "router", "capture", "play":
	default:
		flags.Usage()
		return flag.ErrHelp
	}
	switch command {
	case "run":
		return c.run(ctx)
	case "up":
		return c.up(ctx)
	case "down":
		return c.down(ctx)
	}
	l, err := edge.Attach(c.options.Prefix, c.options.Log)
	if err != nil {
		return err
	}
	switch command {
	case "status":
		return c.status(ctx, l)
	case "exec":
		return c.exec(l, rest)
	case "router":
		if len(rest) < 2 {
			return errors.New("router: a machine and a command")
		}
		answer, err := l.Ask(ctx, rest[0], strings.Join(rest[1:], " "))
		fmt.Fprint(out, answer)
		return err
	case "capture":
		return c.capture(ctx, l, rest)
	}
	return c.play(ctx, l, rest)
}

func (c lab) up(ctx context.Context) error {
	start := time.Now()
	l, err := edge.Up(ctx, c.options)
	if err != nil {
		return fmt.Errorf("%w\nwhat came up is still there: look at it, then take it down", err)
	}
	fmt.Fprintf(c.out, "The edge serves, %.1f s after the start. Its files are in %s.\n\n", time.Since(start).Seconds(), l.Dir)
	return c.status(ctx, l)
}

func (c lab) run(ctx context.Context) (err error) {
	// Whatever becomes of this process, SIGKILL included, the lab goes with it.
	done, err := edge.StartReaper(c.options.Prefix)
	if err != nil {
		return err
	}
	defer done()
	defer func() { err = errors.Join(err, c.down(context.WithoutCancel(ctx))) }()
	if err := c.up(ctx); err != nil {
		return err
	}
	fmt.Fprint(c.out, `
Try, in another terminal:
  go run ./test/lab exec paris curl -sk https://192.0.2.1/whoami
  go run ./test/lab exec fra-1 bin/anyedge status
  go run ./test/lab exec fra-1 bin/anyedge drain --pop fra
  go run ./test/lab router fra-router show bgp ipv4 unicast
  go run ./test/lab play kill-agent iad-1
  go run ./test/lab status
Interrupt to take it all away.
`)
	<-ctx.Done()
	return nil
}

func (c lab) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	return edge.Down(ctx, c.options.Prefix)
}

// exec becomes a command on a machine.
func (c lab) exec(l *edge.Lab, args []string) error {
	if len(args) == 0 || l.Plan.Machine(args[0]) == nil {
		return errors.New("exec: a machine and a command")
	}
	if len(args) == 1 {
		args = append(args, "bash")
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		return err
	}
	argv := append([]string{"ip", "netns", "exec", string(l.Space(args[0]))}, args[1:]...)
	return syscall.Exec(ip, argv, os.Environ())
}

func (c lab) capture(ctx context.Context, l *edge.Lab, args []string) error {
	if len(args) == 0 {
		return errors.New("capture: the end of a cable, such as fra-1 or core-eu/fra-router")
	}
	end, err := l.ParseEnd(args[0])
	if err != nil {
		return err
	}
	capture, err := l.Capture(ctx, end, strings.Join(args[1:], " "))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s: writing to %s until interrupted\n", end, capture.File)
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
	defer cancel()
	return capture.Stop(ctx)
}
