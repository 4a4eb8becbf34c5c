// Steering plays a day of a synthetic Internet under each way of steering and
// writes what came of it as a table and a plot.
//
//	go run ./test/steering [--pops 50] [--clients 20000] [--outages 8] [--spare 1.5] [--seed 1] [--out DIR]
//
// It writes DIR/steering.md and DIR/steering.svg; the same flags write the same
// files. One processor is enough; a day takes some seconds for each way.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"anyedge/gslb/steer/world"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "steering:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	var cfg world.Config
	flags := flag.NewFlagSet("steering", flag.ContinueOnError)
	flags.IntVar(&cfg.Pops, "pops", 50, "points of presence, 2 to 50")
	flags.IntVar(&cfg.Clients, "clients", 20000, "client networks")
	flags.Float64Var(&cfg.Spare, "spare", 1.5, "all ceilings over the greatest demand")
	flags.Uint64Var(&cfg.Seed, "seed", 1, "of the world and its day")
	outages := flags.Int("outages", 8, "PoP failures of the day, 1 to 50")
	dir := flags.String("out", "docs", "directory to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *outages < 1 || *outages > 50 || flags.NArg() > 0 {
		return errors.New("usage: --outages is 1 to 50, and there are no arguments")
	}
	w, err := world.New(cfg)
	if err != nil {
		return err
	}
	r := report{cfg: cfg, world: w, outages: w.Outages(cfg.Seed, *outages)}
	for kind := range world.Steerings {
		o, err := w.Play(kind, r.outages, cfg.Seed)
		if err != nil {
			return err
		}
		r.outcomes = append(r.outcomes, &o)
	}
	table := r.table()
	fmt.Fprint(out, table)
	page := strings.Join([]string{heading, table, r.text()}, "\n")
	if err := os.WriteFile(filepath.Join(*dir, "steering.md"), []byte(page), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*dir, "steering.svg"), r.plot(), 0o644)
}
