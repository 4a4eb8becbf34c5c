// Package interop proves package bgp against other implementations: FRR, BIRD,
// OpenBGPD and ExaBGP, each in a network namespace of its own, all of them
// neighbors of one Speaker in another. For every feature that an upstream can
// have it asks the peer what it sees, and prints a table of the answers. It
// needs root, and ANYEDGE_INTEROP=1.
//
// # Concurrency
//
// The peers are checked at the same time. The Speaker, its BFD and what it
// announces are shared by all of them; see edge.
package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"anyedge/bgp/bfd"
	"anyedge/test/lab/netns"
)

const (
	envWanted = "ANYEDGE_INTEROP"
	envSpace  = "ANYEDGE_INTEROP_SPACE" // set in the process that is the edge
	// engineArgument makes the test binary a BFD engine.
	engineArgument = "bfd-engine"
	// eventually bounds waits for what must happen; machines are busy.
	eventually = 20 * time.Second
)

// programs are what the test runs, and Debian's packages with them.
var programs = map[string]string{
	"ip": "iproute2", "nft": "nftables", "vtysh": "frr", "/usr/lib/frr/bgpd": "frr", "/usr/sbin/bird": "bird2",
	"/usr/sbin/bgpd": "openbgpd", "/usr/sbin/exabgp": "exabgp",
}

// TestMain starts this program once more, inside of the edge's namespace, and
// takes all namespaces away when that has ended, however it ended.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], engineArgument) {
		if err := bfd.Serve(os.NewFile(3, "control")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(envSpace) != "" || os.Getenv(envWanted) == "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	code, err := runInside()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// runInside runs this program in a new namespace and returns its exit code.
func runInside() (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := removeOld(ctx); err != nil {
		return 0, err
	}
	prefix := fmt.Sprintf("iop-%d-", os.Getpid())
	space := netns.Space(prefix + "edge")
	defer func() {
		err = errors.Join(err, netns.Remove(context.WithoutCancel(ctx), prefix))
	}()
	if err := netns.Space("").IP(ctx, "netns add "+string(space)); err != nil {
		return 0, err
	}
	if err := space.IP(ctx, "link set lo up"); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// Files of a run that is killed go with it. The daemons' users look inside.
	dir, err := os.MkdirTemp("", "iop")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), envSpace+"="+string(space), "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := space.Do(cmd.Start); err != nil {
		return 0, err
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// removeOld removes what runs have left that were killed.
func removeOld(ctx context.Context) error {
	spaces, err := netns.List("iop-")
	for _, s := range spaces {
		var owner int
		if _, bad := fmt.Sscanf(string(s), "iop-%d-", &owner); bad == nil && errors.Is(syscall.Kill(owner, 0), syscall.ESRCH) {
			err = errors.Join(err, netns.Remove(ctx, fmt.Sprintf("iop-%d-", owner)))
		}
	}
	return err
}

// TestMatrix is the table: a row for each peer, a column for each feature.
func TestMatrix(t *testing.T) {
	switch {
	case os.Getenv(envWanted) == "":
		t.Skipf("takes half a minute: set %s=1, or run make interop", envWanted)
	case os.Geteuid() != 0:
		t.Skip("needs root, for network namespaces")
	}
	for program, debian := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here: install Debian's %s", program, debian)
		}
	}
	began := time.Now()
	e := newEdge(t, netns.Space(os.Getenv(envSpace)))
	peers := []*site{
		e.newSite(1, "FRR", &frr{}),
		e.newSite(2, "BIRD", &bird{}),
		e.newSite(3, "OpenBGPD", &openbgpd{}),
		e.newSite(4, "ExaBGP", &exabgp{}),
	}
	e.run(peers)
	results := make([][]string, len(peers))
	var all sync.WaitGroup
	for i, s := range peers {
		all.Go(func() {
			for _, c := range columns {
				cell := s.try(c)
				results[i] = append(results[i], cell)
				if strings.HasPrefix(cell, failed) {
					t.Errorf("%s, %s: %s", s.name, c.name, cell)
				}
			}
		})
	}
	all.Wait()
	fmt.Print(table(peers, results), "\n", time.Since(began).Round(time.Second), "\n")
}

// table is the matrix for people to read, with what the peers lack below it.
func table(peers []*site, results [][]string) string {
	var out, notes strings.Builder
	fmt.Fprintf(&out, "\n| %-9s", "")
	for _, c := range columns {
		fmt.Fprintf(&out, " | %-13s", c.name)
	}
	out.WriteString(" |\n|-----------")
	for range columns {
		out.WriteString("|---------------")
	}
	out.WriteString("|\n")
	for i, s := range peers {
		fmt.Fprintf(&out, "| %-9s", s.name)
		for j, cell := range results[i] {
			word, note, more := strings.Cut(cell, ": ")
			fmt.Fprintf(&out, " | %-13s", word)
			if more {
				fmt.Fprintf(&notes, "%s, %s: %s: %s\n", s.name, columns[j].name, word, note)
			}
		}
		out.WriteString(" |\n")
	}
	return out.String() + "\n" + notes.String()
}
