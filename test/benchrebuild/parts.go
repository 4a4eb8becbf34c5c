package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"anyedge/gslb"
	"anyedge/gslb/steer"

	"golang.org/x/sys/unix"
)

// result is what a part reports.
type result struct {
	Took []time.Duration // of each rebuild
	CPU  []time.Duration // the same in CPU time of the process
	Peak int64           // most resident memory, in octets
}

func (r result) String() string {
	return fmt.Sprintf("%d rebuilds, slowest %v, most CPU %v, %d MB", len(r.Took), slices.Max(r.Took), slices.Max(r.CPU), r.Peak>>20)
}

// those returns the times, sorted, of the rebuilds that keep the names, or of the
// others.
func those(times []time.Duration, keepThem bool) (list []time.Duration) {
	for i, t := range times {
		if keepsNames(i) == keepThem {
			list = append(list, t)
		}
	}
	slices.Sort(list)
	return list
}

func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)/2]
}

// used is the CPU time of this process.
func used() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// newServer returns a server of the world's zone.
func newServer(sockets int) (*gslb.Server, error) {
	return gslb.New(gslb.Config{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.79.9:0")}, Sockets: sockets,
		Zones: []gslb.Zone{{Name: zone, Text: records()}},
	}, slog.New(slog.DiscardHandler), nil)
}

// add makes a rebuild and notes it.
func (r *result) add(s *gslb.Server, in *steer.Input, i int) error {
	before, err := used()
	if err != nil {
		return err
	}
	took, err := rebuild(s, in, i)
	if err != nil {
		return err
	}
	after, err := used()
	r.Took, r.CPU = append(r.Took, took), append(r.CPU, after-before)
	return err
}

// rebuild is the way from a change in the fleet to what is served. The input is a
// copy, as a node makes one; the lists of networks are shared.
func rebuild(s *gslb.Server, in *steer.Input, i int) (time.Duration, error) {
	next := *in
	next.Pops, next.Names = slices.Clone(in.Pops), slices.Clone(in.Names)
	change(&next, i)
	started := time.Now()
	table, err := gslb.BuildTable(next)
	if err != nil {
		return 0, err
	}
	err = s.Update(table)
	return time.Since(started), err
}

// build is the part that has one core.
func build(ctx context.Context, o options, out io.Writer) error {
	var one unix.CPUSet
	one.Set(firstCPU())
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads { // later threads are like those that start them
		var id int
		if _, err := fmt.Sscan(t.Name(), &id); err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &one); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("one core: %w", err)
		}
	}
	in := input(o.size)
	s, err := newServer(1)
	if err != nil {
		return err
	}
	var r result
	for i := range o.rebuilds {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.add(s, &in, i); err != nil {
			return err
		}
	}
	runtime.KeepAlive(in) // it counts
	return r.write(out)
}

// firstCPU is a core that this process may use.
func firstCPU() int {
	var allowed unix.CPUSet
	if unix.SchedGetaffinity(0, &allowed) == nil {
		for i := range 1024 {
			if allowed.IsSet(i) {
				return i
			}
		}
	}
	return 0
}

// serve is the part that serves: at first without rebuilding, from a line on in
// until its end with.
func serve(ctx context.Context, o options, in io.Reader, out io.Writer) error {
	cores := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(cores + gslb.SpareProcessors) // as a node does
	world := input(o.size)
	s, err := newServer(cores)
	if err != nil {
		return err
	}
	if _, err := rebuild(s, &world, 0); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-ended:
		return err
	}
	if err := json.NewEncoder(out).Encode(s.Addresses()[0]); err != nil {
		return err
	}
	commands := bufio.NewScanner(in)
	if !commands.Scan() {
		return errors.New("told nothing")
	}
	enough := make(chan struct{})
	go func() { // ends with the parent at the latest
		defer close(enough)
		for commands.Scan() {
		}
	}()
	var r result
	for i := 0; ; i++ {
		select {
		case <-enough:
			runtime.KeepAlive(world) // it counts
			if err := r.write(out); err != nil {
				return err
			}
			stop()
			return <-ended
		case err := <-ended:
			return err
		default:
		}
		if err := r.add(s, &world, i); err != nil {
			return err
		}
	}
}

// write writes the result, with the most memory that the process had.
func (r *result) write(out io.Writer) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, found := bytes.Cut(status, []byte("VmHWM:"))
	if _, err := fmt.Sscan(string(rest), &r.Peak); err != nil || !found {
		return fmt.Errorf("no VmHWM in /proc/self/status: %w", err)
	}
	r.Peak <<= 10 // of kB
	return json.NewEncoder(out).Encode(r)
}
