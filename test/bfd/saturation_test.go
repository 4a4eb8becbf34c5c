package bfd

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"anyedge/bgp/bfd"
)

// saturationTime is the environment variable that asks for TestSaturation and
// says how long each of its cases takes, such as 10s.
const saturationTime = "ANYEDGE_BFD_SATURATION"

// TestSaturation keeps sessions between two engines while goroutines of this
// process and other processes want all of the machine. An engine process must
// keep its sessions at 3x50ms; how it does at 3x10ms, and how a thread of this
// process does, is only told.
func TestSaturation(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv(saturationTime))
	if err != nil {
		t.Skipf("set %s to a duration, such as 10s, on a machine without other work", saturationTime)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	process := bfd.Config{Engine: []string{self, engineArgument}}
	for i, test := range []struct {
		name     string
		engine   bfd.Config
		interval time.Duration
		must     bool
	}{
		{"process/3x50ms", process, 50 * time.Millisecond, true},
		{"process/3x10ms", process, 10 * time.Millisecond, false},
		{"thread/3x50ms", bfd.Config{}, 50 * time.Millisecond, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := netip.AddrFrom4([4]byte{127, 69, byte(i), 1})
			b := netip.AddrFrom4([4]byte{127, 69, byte(i), 2})
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			defer group.Wait()
			defer cancel()
			ends := [2]*bfd.Manager{}
			var least atomic.Int64 // margin in ns
			least.Store(int64(time.Hour))
			for i, addrs := range [2][2]netip.Addr{{a, b}, {b, a}} {
				m := bfd.NewManager(test.engine, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
				ends[i] = m
				group.Go(func() { m.Run(ctx) })
				if err := m.Set(ctx, []bfd.Peer{{LocalAddress: addrs[0], Address: addrs[1], TransmitInterval: test.interval}}); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range ends {
				await(t, "up", func() bool { s := m.Status(); return s[0].State == bfd.Up && s[0].ReceiveInterval == test.interval },
					func() string { return fmt.Sprintf("%+v", m.Status()) })
			}
			flaps := func() uint64 { return ends[0].Status()[0].Flaps + ends[1].Status()[0].Flaps }
			before := flaps()
			saturate(t, length, func() {
				for _, m := range ends {
					if d := m.Status()[0].DetectMargin; d >= 0 {
						least.Store(min(least.Load(), int64(d)))
					}
				}
			})
			// Reports may come late; the counters in them do not lie.
			time.Sleep(2 * time.Second)
			n := flaps() - before
			t.Logf("%s: %d flaps in %v, least margin %v of %v", test.name, n, length,
				time.Duration(least.Load()).Round(100*time.Microsecond), 3*test.interval)
			if n > 0 && test.must {
				t.Errorf("%d flaps", n)
			}
		})
	}
}

// saturate wants four times the machine for a while, half of it in this process,
// with garbage to collect, and looks around every 200 ms.
func saturate(t *testing.T, length time.Duration, look func()) {
	t.Helper()
	cores := runtime.NumCPU()
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 2 * cores {
		c := exec.Command("sh", "-c", "while :; do :; done")
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer c.Wait()
		defer c.Process.Kill()
		group.Go(func() {
			var keep [][]byte
			for x := 1; !stop.Load(); x++ {
				if keep = append(keep, make([]byte, 1024)); len(keep) > 20000 {
					keep = nil
				}
			}
		})
	}
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		look()
	}
	stop.Store(true)
	group.Wait()
}
