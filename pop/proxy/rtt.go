package proxy

import (
	"context"
	"encoding/binary"
	"iter"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"anyedge/pop/link"
	"anyedge/pop/proxy/exchange"
)

// The kernel knows the round-trip time of every TCP connection, and it costs a
// system call to ask: half a microsecond. So few are asked about, chosen at
// random, and each stands for many.
//
// A connection is asked about when it is accepted, or its TLS handshake is over:
// by then the kernel has timed the TCP handshake, and with TLS one or two flights
// more, and the client's think time is in none of them. One that stays is asked
// about again now and then. So a network has as many connections as it makes, and
// one more for each minute that one of them is open.
//
// QUIC has RTTs of its own, which cost nothing, so each of its connections counts
// by the same rule, when it has ended.
//
// How much clients ask for is known from one request in sixty-four, whatever the
// protocol: connections differ by that a thousandfold.
//
// Connections from this machine and from trusted hops are left out: their RTT is
// that of a load balancer, whoever the client is.

// KindRTT is the worker's message [RTTs]. It has no answer.
const KindRTT link.Kind = "rtt"

const (
	// rttStride is how many new connections one that is asked about stands for.
	// It keeps the cost below 0.1 µs for each.
	rttStride = 16
	// requestStride is how many requests one that is taken note of stands for.
	requestStride = 64
	// rttLook is the pace of looking at open connections, of which at most
	// rttLooks are asked about each time.
	rttLook  = 10 * time.Second
	rttLooks = 256
	// rttFlush is the pace of messages, and rttMost how many records one has at
	// most.
	rttFlush = time.Second
	rttMost  = 4096
)

// RTTs are round-trip times of client connections, as the kernel and QUIC have
// measured them, and how many requests came from where.
type RTTs struct {
	// Packed holds a record for each: an IPv6 address, or an IPv4 one in such
	// form, then 32 bits each for microseconds and for connections, in network
	// byte order. No microseconds mean that requests were counted and not
	// connections; agents that do not know of them pass such a record over.
	Packed []byte `json:"packed"`
	// Dropped is how many others there was no room for.
	Dropped int `json:"dropped,omitempty"`
}

// RTT is the round-trip time of one connection.
type RTT struct {
	Client      netip.Addr
	RTT         time.Duration // above 0
	Connections int           // that it stands for, at least 1
}

const rttSize = 16 + 4 + 4

// Add appends r, or counts it as dropped if that would be too many.
func (s *RTTs) Add(r RTT) {
	s.add(r.Client, max(1, r.RTT.Microseconds()), r.Connections)
}

// AddRequests appends so many requests of a client, or counts them as dropped.
func (s *RTTs) AddRequests(client netip.Addr, requests int) { s.add(client, 0, requests) }

func (s *RTTs) add(client netip.Addr, us int64, count int) {
	if len(s.Packed) >= rttMost*rttSize {
		s.Dropped++
		return
	}
	address := client.As16()
	s.Packed = append(s.Packed, address[:]...)
	s.Packed = binary.BigEndian.AppendUint32(s.Packed, uint32(min(us, math.MaxUint32)))
	s.Packed = binary.BigEndian.AppendUint32(s.Packed, uint32(min(count, math.MaxUint32)))
}

// All yields the round-trip times. Bytes that make no whole record are passed over.
func (s RTTs) All() iter.Seq[RTT] {
	return func(yield func(RTT) bool) {
		for client, counted := range s.records {
			if counted.us > 0 && !yield(RTT{client, time.Duration(counted.us) * time.Microsecond, int(counted.count)}) {
				return
			}
		}
	}
}

// Requests yields clients and how many requests of theirs there were.
func (s RTTs) Requests() iter.Seq2[netip.Addr, int] {
	return func(yield func(netip.Addr, int) bool) {
		for client, counted := range s.records {
			if counted.us == 0 && !yield(client, int(counted.count)) {
				return
			}
		}
	}
}

// rttRecord is what a record has about its client.
type rttRecord struct{ us, count uint32 }

func (s RTTs) records(yield func(netip.Addr, rttRecord) bool) {
	for b := s.Packed; len(b) >= rttSize; b = b[rttSize:] {
		record := rttRecord{binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])}
		if !yield(netip.AddrFrom16([16]byte(b)).Unmap(), record) {
			return
		}
	}
}

// rttSampler collects round-trip times and requests until they are sent.
type rttSampler struct {
	on     atomic.Bool
	kernel func(net.Conn) time.Duration // kernelRTT, but in tests

	mu    sync.Mutex
	taken RTTs // guarded by mu
}

// begun takes notice of a new connection.
func (s *rttSampler) begun(conn net.Conn, hops []netip.Prefix) {
	if !s.on.Load() || rand.IntN(rttStride) != 0 {
		return
	}
	if !local(conn) && !trusted(unmap(conn.RemoteAddr()).Addr(), hops) {
		s.ask(conn, rttStride)
	}
}

// ask records the RTT of a connection, if the kernel knows one.
func (s *rttSampler) ask(conn net.Conn, connections int) {
	if rtt := s.kernel(conn); rtt > 0 {
		s.add(RTT{unmap(conn.RemoteAddr()).Addr(), rtt, connections})
	}
}

// ended takes notice of a QUIC connection that has ended.
func (s *rttSampler) ended(client netip.Addr, hops []netip.Prefix, rtt, lasted time.Duration) {
	if s.on.Load() && rtt > 0 && !client.IsLoopback() && !trusted(client, hops) {
		s.add(RTT{client, rtt, atRandom(1 + lasted.Minutes())})
	}
}

// requested takes notice of a request. It is called for each.
func (s *rttSampler) requested(conn *exchange.Conn, hops []netip.Prefix) {
	if rand.Uint32()%requestStride == 0 && s.on.Load() {
		s.request(conn, hops)
	}
}

// request records requests, if they are a client's.
func (s *rttSampler) request(conn *exchange.Conn, hops []netip.Prefix) {
	client := conn.Client.Addr()
	if client.IsLoopback() || client == conn.Local.Addr() || trusted(client, hops) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken.AddRequests(client.WithZone(""), requestStride)
}

func (s *rttSampler) add(r RTT) {
	r.Client = r.Client.WithZone("")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken.Add(r)
}

// take returns what has been collected since it was last called.
func (s *rttSampler) take() RTTs {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.taken
	s.taken = RTTs{}
	return taken
}

// look asks about some of the open connections. Together they stand for as many
// connections as minutes have passed on all of them since the last look.
func (s *rttSampler) look(open *conns) {
	if !s.on.Load() {
		return
	}
	some, all := open.sample(rttLooks)
	if len(some) == 0 {
		return
	}
	passed := float64(all) * rttLook.Minutes()
	n := min(len(some), atRandom(passed))
	for _, conn := range some[:n] {
		s.ask(conn, max(1, atRandom(passed/float64(n))))
	}
}

// atRandom rounds up or down, so that it is right on average.
func atRandom(x float64) int { return int(x + rand.Float64()) }

// kernelRTT returns the smoothed RTT of a connection (RFC 6298), 0 if there is
// none.
func kernelRTT(conn net.Conn) time.Duration {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if info == nil { // it has been closed meanwhile
		return 0
	}
	return time.Duration(info.Rtt) * time.Microsecond
}

// measure sends what was collected until ctx ends. A link that fails is noticed
// by receive.
func (c *control) measure(ctx context.Context) {
	s := &c.worker.rtts
	flush, look := time.NewTicker(rttFlush), time.NewTicker(rttLook)
	defer flush.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			s.look(&c.worker.conns)
			continue
		case <-flush.C:
		}
		if taken := s.take(); len(taken.Packed) > 0 {
			for range taken.All() {
				c.worker.metrics.measured.Inc()
			}
			if err := c.conn.Send(KindRTT, taken); err != nil {
				return
			}
		}
	}
}
