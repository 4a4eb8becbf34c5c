package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"anyedge/gslb"
	"anyedge/gslb/steer"
	"anyedge/internal/daemon"
	"anyedge/test/bench/rig"
	"anyedge/test/lab/dns"
)

// server is one that takes part.
type server struct {
	name    string
	address netip.Addr
	// command runs it in the foreground with the config in dir.
	command func(dir, binary string) (tool string, args []string)
}

// String is its name.
func (s server) String() string { return s.name }

const anyedge = "anyedge"

// Every server has a loopback address of its own, and this port. They lie below
// the range from which the kernel takes the ports of clients.
const (
	port      = 15353
	adminPort = 15354
	sockets   = 64
)

var servers = []server{
	{anyedge, netip.AddrFrom4([4]byte{127, 0, 78, 1}), func(dir, binary string) (string, []string) {
		return binary, []string{"gslb", "--config", filepath.Join(dir, "gslb.yaml")}
	}},
	{"gdnsd", netip.AddrFrom4([4]byte{127, 0, 78, 2}), func(dir, _ string) (string, []string) {
		return "gdnsd", []string{"-c", filepath.Join(dir, "gdnsd"), "start"}
	}},
	{"knot", netip.AddrFrom4([4]byte{127, 0, 78, 3}), func(dir, _ string) (string, []string) {
		return "knotd", []string{"-c", filepath.Join(dir, "knot.conf")}
	}},
	{"nsd", netip.AddrFrom4([4]byte{127, 0, 78, 4}), func(dir, _ string) (string, []string) {
		return "nsd", []string{"-d", "-c", filepath.Join(dir, "nsd.conf")}
	}},
	{driver, dns.Server4, nil}, // see measureDriver
}

const (
	startTimeout = 15 * time.Second
	stopGrace    = 5 * time.Second
	warmUp       = time.Second
	toolGrace    = 20 * time.Second // that dnsperf may take longer than asked
)

// measure is one measurement of a fresh server.
func (w *world) measure(ctx context.Context, s server, length time.Duration) (r result, err error) {
	if s.name == driver {
		return w.measureDriver(ctx, length)
	}
	tool, args := s.command(w.dir, w.binary)
	if tool, err = rig.Find(tool); err != nil {
		return r, err
	}
	var log bytes.Buffer
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2") // two threads each, however many cores there are
	cmd.Stdout, cmd.Stderr = &log, &log
	child, err := daemon.Start(cmd)
	if err != nil {
		return r, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		child.Stop(stopping)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, log.Bytes())
		}
	}()
	if err := ready(ctx, s); err != nil {
		return r, fmt.Errorf("it does not serve: %w", err)
	}
	if _, err := w.load(ctx, s.address, here, warmUp); err != nil {
		return r, err
	}
	before, err := rig.CPU(child.Pid())
	if err != nil {
		return r, err
	}
	l, err := w.load(ctx, s.address, here, length)
	if err != nil {
		return r, err
	}
	after, err := rig.CPU(child.Pid())
	if err != nil {
		return r, err
	}
	select {
	case <-child.Done():
		return r, errors.New("it has ended: " + child.Wait().String())
	default:
	}
	return result{
		rate: float64(l.answered) / l.took.Seconds(),
		cost: float64(after-before) / float64(time.Microsecond) / float64(l.answered),
		lost: l.lost,
	}, nil
}

// ready waits until a server answers for the first steered name.
func ready(ctx context.Context, s server) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, 1, 2, 0}), 24)
	for {
		once, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		answer, err := gslb.Lookup(once, netip.AddrPortFrom(s.address, port), "s0."+zone, steer.IPv4, client)
		cancel()
		if err == nil && len(answer.Addresses) > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

// load is what dnsperf reported.
type load struct {
	answered, lost int
	took           time.Duration
}

// here runs a tool where this program is.
func here(ctx context.Context, argv ...string) ([]byte, error) {
	return exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
}

// load loads a server with a tool that is run somewhere. It is an error if the answers are not of the kinds that
// the queries ask for: a figure of refusals means nothing.
func (w *world) load(ctx context.Context, address netip.Addr, run func(ctx context.Context, argv ...string) ([]byte, error), length time.Duration) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, length+toolGrace)
	defer cancel()
	path, err := rig.Find("dnsperf")
	if err != nil {
		return load{}, err
	}
	out, err := run(ctx, path, "-s", address.String(), "-p", strconv.Itoa(port),
		"-d", filepath.Join(w.dir, "queries"), "-B", "-c", strconv.Itoa(sockets), "-T", "1", "-q", "200",
		"-l", strconv.Itoa(int(length.Seconds())), "-t", "2")
	if err != nil {
		return load{}, fmt.Errorf("dnsperf: %w\n%s", err, out)
	}
	return w.parse(out)
}

var (
	perfDone  = regexp.MustCompile(`Queries completed: +(\d+)`)
	perfLost  = regexp.MustCompile(`Queries lost: +(\d+)`)
	perfTook  = regexp.MustCompile(`Run time \(s\): +([\d.]+)`)
	perfCodes = regexp.MustCompile(`Response codes: +NOERROR (\d+) \([\d.]+%\), NXDOMAIN (\d+) \([\d.]+%\)\n`)
)

// parse reads the report of dnsperf.
func (w *world) parse(out []byte) (load, error) {
	number := func(pattern *regexp.Regexp, group int) float64 {
		if m := pattern.FindSubmatch(out); m != nil {
			if v, err := strconv.ParseFloat(string(m[group]), 64); err == nil {
				return v
			}
		}
		return -1
	}
	l := load{int(number(perfDone, 1)), int(number(perfLost, 1)), time.Duration(number(perfTook, 1) * float64(time.Second))}
	if l.answered <= 0 || l.lost < 0 || l.took <= 0 {
		return l, fmt.Errorf("dnsperf did not report queries:\n%s", out)
	}
	missing := number(perfCodes, 2) / float64(l.answered)
	if number(perfCodes, 1)+number(perfCodes, 2) != float64(l.answered) || missing < w.missing-0.01 || missing > w.missing+0.01 {
		return l, fmt.Errorf("answers of other kinds than asked for:\n%s", out)
	}
	if l.lost*1000 > l.answered {
		return l, fmt.Errorf("more than one query in a thousand was lost:\n%s", out)
	}
	return l, nil
}
