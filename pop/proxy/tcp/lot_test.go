package tcp

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// newLot returns a lot that runs, and what ends it.
func newLot(t *testing.T) (*Lot, context.CancelFunc) {
	t.Helper()
	l := NewLot()
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	end := func() { cancel(); tasks.Wait() }
	t.Cleanup(end)
	for {
		l.mu.Lock()
		open := l.open
		l.mu.Unlock()
		if open {
			return l, end
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLotWakes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wait  time.Duration
		event func(theirs *net.TCPConn, s *Spot, end func())
		ready bool
	}{
		{"something came before", time.Hour, nil, true},
		{"something comes", time.Hour, func(theirs *net.TCPConn, _ *Spot, _ func()) { io.WriteString(theirs, "x") }, true},
		{"the peer ends its direction", time.Hour, func(theirs *net.TCPConn, _ *Spot, _ func()) { theirs.CloseWrite() }, true},
		{"the peer resets", time.Hour, func(theirs *net.TCPConn, _ *Spot, _ func()) { theirs.SetLinger(0); theirs.Close() }, true},
		{"the wait passes", 10 * time.Millisecond, func(*net.TCPConn, *Spot, func()) {}, false},
		{"it leaves", time.Hour, func(_ *net.TCPConn, s *Spot, _ func()) { s.Leave(); s.Leave() }, false},
		{"the lot's run ends", time.Hour, func(_ *net.TCPConn, _ *Spot, end func()) { end() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, end := newLot(t)
			ours, theirs := pair(t)
			if tt.event == nil {
				io.WriteString(theirs, "x")
			}
			woken := make(chan bool, 2)
			s := l.Park(ours.Raw(), tt.wait, func(ready bool) { woken <- ready })
			if s == nil {
				t.Fatal("not taken")
			}
			if tt.event != nil {
				select {
				case <-woken:
					t.Fatal("woken by nothing")
				case <-time.After(5 * time.Millisecond):
				}
				tt.event(theirs, s, end)
			}
			if ready := <-woken; ready != tt.ready {
				t.Errorf("ready %v, want %v", ready, tt.ready)
			}
			s.Leave()
			end()
			if len(woken) > 0 {
				t.Error("woken twice")
			}
			if l.Park(ours.Raw(), tt.wait, nil) != nil {
				t.Error("taken after the run has ended")
			}
		})
	}
}

func TestLotTakesNoneBeforeRun(t *testing.T) {
	ours, _ := pair(t)
	if NewLot().Park(ours.Raw(), time.Hour, nil) != nil {
		t.Error("taken")
	}
}

// Sockets come and go many times, and each wait ends once, with what came.
func TestLotManyTimes(t *testing.T) {
	const sockets, rounds = 32, 50
	l, _ := newLot(t)
	var tasks sync.WaitGroup
	for range sockets {
		ours, theirs := pair(t)
		tasks.Go(func() {
			b := make([]byte, 1)
			for i := range rounds {
				woken := make(chan bool, 1)
				if l.Park(ours.Raw(), time.Hour, func(ready bool) { woken <- ready }) == nil {
					t.Error("not taken")
					return
				}
				theirs.Write([]byte{byte(i)})
				if ready := <-woken; !ready {
					t.Error("not ready")
				}
				if _, err := ours.Read(b); err != nil || b[0] != byte(i) {
					t.Errorf("read %d, %v, want %d", b[0], err, i)
				}
			}
		})
	}
	tasks.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spots) != 0 {
		t.Errorf("%d are left", len(l.spots))
	}
}
