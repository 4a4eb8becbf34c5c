package edge

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"anyedge/test/lab/netns"
	"anyedge/test/lab/topology"
)

// Capture is a tcpdump at one end of a cable.
type Capture struct {
	// File is the pcap file in the run folder. It never ends within a packet; the
	// last ones are there as soon as tcpdump has got to run.
	File string

	lab   *Lab
	space netns.Space
	ended <-chan struct{}
}

// Capture begins to write what passes an interface, both ways, to a file of the
// run folder, and returns when nothing is missed any more. The filter is
// tcpdump's; empty means everything.
func (l *Lab) Capture(ctx context.Context, e topology.End, filter string) (*Capture, error) {
	name := strings.ReplaceAll(e.String(), "/", "-") + time.Now().Format("-150405.000")
	c := &Capture{File: l.path(name + ".pcap"), lab: l, space: l.Space(e.Machine)}
	output := l.path(name + ".log")
	argv := []string{"tcpdump", "-i", e.Interface, "-n", "-U", "--immediate-mode", "-Z", "root", "-w", c.File}
	if filter != "" {
		argv = append(argv, filter)
	}
	var err error
	if c.ended, err = c.space.Start(l.Dir, output, argv...); err != nil {
		return nil, err
	}
	err = l.Eventually(ctx, "tcpdump listens", 5*time.Second, func(context.Context) error {
		data, err := os.ReadFile(output)
		if err == nil && !strings.Contains(string(data), "listening on") {
			err = fmt.Errorf("it says %q", data)
		}
		return err
	})
	return c, err
}

// Stop ends the capture.
func (c *Capture) Stop(ctx context.Context) error {
	found, err := c.space.Find(func(p netns.Process) bool {
		return p.Name() == "tcpdump" && strings.Contains(strings.Join(p.Args, " "), c.File)
	})
	if err != nil {
		return err
	}
	for _, p := range found {
		if err := p.Signal(syscall.SIGINT); err != nil {
			return err
		}
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
