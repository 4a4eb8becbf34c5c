package http3

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// relay passes one client's datagrams on, as a NAT does.
type relay struct {
	t     testing.TB
	addr  *net.UDPAddr
	front *net.UDPConn
	tasks sync.WaitGroup

	mu        sync.Mutex
	up        *net.UDPConn // towards the server
	to        *net.UDPAddr
	client    *net.UDPAddr
	holdsUp   bool // the client's datagrams are held
	holdsDown bool // the server's are
	held      [][]byte
	answers   [][]byte
	see       func([]byte) // the client's datagrams; nil does nothing
}

func newRelay(t testing.TB, to *net.UDPAddr) *relay {
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, addr: front.LocalAddr().(*net.UDPAddr), front: front, to: to}
	r.rebind()
	r.tasks.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := front.ReadFromUDP(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.client = from
			if r.see != nil {
				r.see(b[:n])
			}
			if r.holdsUp {
				r.held = append(r.held, bytes.Clone(b[:n]))
			} else {
				r.up.WriteToUDP(b[:n], r.to)
			}
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		front.Close()
		r.mu.Lock()
		r.up.Close()
		r.mu.Unlock()
		r.tasks.Wait()
	})
	return r
}

// rebind has the server see another port from now on.
func (r *relay) rebind() {
	up, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.up != nil {
		r.up.Close()
	}
	r.up = up
	r.tasks.Go(func() {
		b := make([]byte, 2048)
		for {
			n, _, err := up.ReadFromUDP(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			if r.holdsDown {
				r.answers = append(r.answers, bytes.Clone(b[:n]))
			} else {
				r.front.WriteToUDP(b[:n], r.client)
			}
			r.mu.Unlock()
		}
	})
}

// hold keeps the datagrams of each direction back, or passes on what was kept.
func (r *relay) hold(up, down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holdsUp, r.holdsDown = up, down
	if !up {
		for _, b := range r.held {
			r.up.WriteToUDP(b, r.to)
		}
		r.held = nil
	}
	if !down {
		for _, b := range r.answers {
			r.front.WriteToUDP(b, r.client)
		}
		r.answers = nil
	}
}

// retarget passes to another server from now on.
func (r *relay) retarget(to *net.UDPAddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
}
