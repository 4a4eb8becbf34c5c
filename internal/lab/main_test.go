package lab

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	ossignal "os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"anyedge/configs"
)

// roleVariable makes the test binary play a part of the lab.
const roleVariable = "ANYEDGE_LAB_TEST_ROLE"

var roles = map[string]func(){
	// obedient ends in order on SIGTERM, and says so.
	"obedient": func() {
		ctx, stop := ossignal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("ended in order")
	},
	// brief ends by itself.
	"brief": func() { fmt.Println("ready") },
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		roles[role]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var quiet = slog.New(slog.DiscardHandler)

// testNetwork is this process's own, out of reach of FreeNetwork's choice.
var testNetwork = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(201 + os.Getpid()%50), 0, 0}), 16)

// newTestLab is a lab of a config, with its files written.
func newTestLab(t *testing.T, cfg *configs.Lab) *Lab {
	t.Helper()
	cfg.Network = testNetwork
	l := New(Options{Config: cfg, Dir: filepath.Join(t.TempDir(), "lab"), Out: t.Output(), Log: quiet})
	if err := l.writeFiles(time.Now()); err != nil {
		t.Fatal(err)
	}
	return l
}

// await waits until holds is true.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// within fails the test if a function does not return soon.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not within %s", what, limit)
	}
}
