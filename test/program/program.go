// Package program is the outside of the programs that measure and play: how they
// end, the flags that those which compare have in common, and where a report goes.
//
// # Concurrency
//
// Nothing here is for concurrent use.
package program

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
)

// Run is the work of a program: args are its arguments, errOut is for progress.
type Run func(ctx context.Context, args []string, out, errOut io.Writer) error

// Main runs a program with its arguments and exits if it fails. Its context ends
// with the first signal. A second one does not cut the orderly end short, which
// has to be bounded: it would leave processes behind that the program started.
func Main(name string, run Run) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Comparison is what the flags say of a program that compares anyedge with others
// in rounds.
type Comparison struct {
	Binary string        // the anyedge under test
	Rounds int           // 1 to 99
	Length time.Duration // of one measurement, 1 s to 60 s
	Out    string        // the file for the table; "" for none
}

// Flags returns the flags of a comparison, for a program to add its own, and what
// parses them into c. Of each peer, such as "server", every round is a measurement of
// so many seconds, unless the caller says otherwise.
func (c *Comparison) Flags(name, peer string, seconds int, errOut io.Writer) (flags *flag.FlagSet, parse func(args []string) error) {
	flags = flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.StringVar(&c.Binary, "anyedge", "bin/anyedge", "the binary under test")
	flags.IntVar(&c.Rounds, "rounds", 5, "measurements of each "+peer+", 1 to 99")
	flags.IntVar(&seconds, "seconds", seconds, "length of one measurement, 1 to 60")
	flags.StringVar(&c.Out, "out", "", "also write the table as Markdown to this file")
	return flags, func(args []string) error {
		if err := flags.Parse(args); err != nil {
			return err
		}
		if flags.NArg() > 0 {
			return fmt.Errorf("unexpected argument %q", flags.Arg(0))
		}
		if c.Rounds < 1 || c.Rounds > 99 || seconds < 1 || seconds > 60 {
			return errors.New("--rounds must be 1 to 99, --seconds 1 to 60")
		}
		c.Length = time.Duration(seconds) * time.Second
		return nil
	}
}

// Choose returns those of all whose names are in a list with commas, in the order
// of all; the empty list is all of them.
func Choose[T any](list string, all []T, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	for _, w := range wanted {
		if !slices.ContainsFunc(all, func(one T) bool { return name(one) == w }) {
			return nil, fmt.Errorf("nothing is called %q; there are %s", w, Names(all, name))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return !slices.Contains(wanted, name(one)) }), nil
}

// Names lists the names of all, with commas.
func Names[T any](all []T, name func(T) string) string {
	var names []string
	for _, one := range all {
		names = append(names, name(one))
	}
	return strings.Join(names, ",")
}

// Report writes a table, and, given a file, its Markdown there too.
func Report(out io.Writer, table, file, markdown string) error {
	if _, err := io.WriteString(out, table); err != nil || file == "" {
		return err
	}
	return os.WriteFile(file, []byte(markdown), 0o644)
}
