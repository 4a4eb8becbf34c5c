package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sockets is how many the prober has, so that the server's threads all get some.
const sockets = 64

// lateAfter is how long a query may be without its answer before it counts as
// lost.
const lateAfter = time.Second

// prober asks a server at a fixed rate.
type prober struct {
	options
	fds  [sockets]int
	poll int
	// sent are the times of the queries without an answer, in Unix nanoseconds, by
	// socket and id.
	sent [sockets][1 << 16]atomic.Int64
}

func newProber(server netip.AddrPort, o options) (*prober, error) {
	p := &prober{options: o, poll: -1}
	for i := range p.fds {
		p.fds[i] = -1
	}
	err := p.open(server)
	if err != nil {
		p.close()
		return nil, fmt.Errorf("prober: %w", err)
	}
	return p, nil
}

func (p *prober) open(server netip.AddrPort) (err error) {
	if p.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	for i := range p.fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		p.fds[i] = fd
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())}); err != nil {
			return err
		}
		if err := unix.EpollCtl(p.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
	}
	return nil
}

func (p *prober) close() {
	for _, fd := range p.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if p.poll >= 0 {
		unix.Close(p.poll)
	}
}

// run asks for some time and returns how long the answers took, of queries in
// whose time no core was away.
func (p *prober) run(ctx context.Context, length time.Duration) (asked, error) {
	count := int(length.Seconds() * float64(p.rate))
	all := make([]interval, 0, count)
	unwatch := watch()
	done := make(chan struct{})
	var received error
	var finish atomic.Int64 // when to give up, once all is sent
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		all, received = p.receive(all, count, &finish)
	}()
	err := p.send(ctx, count)
	finish.Store(time.Now().Add(lateAfter).UnixNano())
	<-done
	away := unwatch()
	if err = errors.Join(err, received); err != nil {
		return asked{}, err
	}
	var a asked
	for _, i := range all {
		if touches(away, i) {
			a.away++
		} else {
			a.latencies = append(a.latencies, time.Duration(i.to-i.from))
		}
	}
	for i := range p.sent {
		for id := range p.sent[i] {
			if p.sent[i][id].Swap(0) != 0 {
				a.latencies = append(a.latencies, lateAfter)
			}
		}
	}
	slices.Sort(a.latencies)
	return a, nil
}

// send sends the queries, each at its time, however late the answers are.
func (p *prober) send(ctx context.Context, count int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Where it may, the thread goes before all others: between the time of a query
	// and its system call nothing shall come.
	raise(1)
	defer unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	random := rand.New(rand.NewPCG(3, 4))
	start := time.Now()
	for i := range count {
		if i%64 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		msg := p.question(random)
		if wait := time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(p.rate))); wait > 0 {
			pause := unix.NsecToTimespec(int64(wait))
			unix.Nanosleep(&pause, nil) // early is no harm
		}
		socket, id := i%sockets, uint16(i/sockets)
		binary.BigEndian.PutUint16(msg, id)
		p.sent[socket][id].Store(time.Now().UnixNano())
		if _, err := unix.Write(p.fds[socket], msg); err != nil && err != unix.EAGAIN {
			return os.NewSyscallError("send", err)
		}
	}
	return nil
}

// question is for a steered name; half of them speak for a client network.
func (p *prober) question(random *rand.Rand) []byte {
	msg := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}
	for label := range strings.SplitSeq(name(random.IntN(p.size.names-1)), ".") {
		msg = append(append(msg, byte(len(label))), label...)
	}
	msg = append(msg, 0, 0, 1, 0, 1, 0, 0, 41, 1232>>8, 1232&0xff, 0, 0, 0, 0, 0)
	if random.IntN(2) == 0 {
		return append(msg, 0)
	}
	client := network(p.size, random.IntN(p.size.networks))
	octets, family := client.Addr().AsSlice()[:client.Bits()/8], byte(1)
	if client.Addr().Is6() {
		family = 2
	}
	msg = append(msg, byte(8+len(octets)), 0, 8, 0, byte(4+len(octets)), 0, family, byte(client.Bits()), 0)
	return append(msg, octets...)
}

// receive collects the answers until all have come, or the time to give up.
func (p *prober) receive(all []interval, count int, finish *atomic.Int64) ([]interval, error) {
	var events [sockets]unix.EpollEvent
	msg, control := make([]byte, 4096), make([]byte, 64)
	for len(all) < count {
		if at := finish.Load(); at != 0 && time.Now().UnixNano() > at {
			break
		}
		n, err := unix.EpollWait(p.poll, events[:], 100)
		if err != nil && err != unix.EINTR {
			return all, os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			for {
				n, used, _, _, err := unix.Recvmsg(p.fds[e.Fd], msg, control, 0)
				if err == unix.EAGAIN {
					break
				}
				if err != nil {
					return all, os.NewSyscallError("receive", err)
				}
				at, err := timestamp(control[:used])
				if err != nil {
					return all, err
				}
				if n < 12 || msg[3]&0xf != 0 || binary.BigEndian.Uint16(msg[6:]) == 0 {
					return all, fmt.Errorf("an answer without addresses: %x", msg[:n])
				}
				if sent := p.sent[e.Fd][binary.BigEndian.Uint16(msg)].Swap(0); sent != 0 {
					all = append(all, interval{sent, at})
				}
			}
		}
	}
	return all, nil
}

// timestamp is when the kernel had a datagram, in Unix nanoseconds.
func timestamp(control []byte) (int64, error) {
	if len(control) < unix.CmsgSpace(16) {
		return 0, errors.New("a datagram without its time")
	}
	data := control[unix.CmsgLen(0):]
	return int64(binary.NativeEndian.Uint64(data))*1e9 + int64(binary.NativeEndian.Uint64(data[8:])), nil
}

// asked is what came of a run: how long the answers took, and how many queries do
// not count, because the host had a core meanwhile.
type asked struct {
	latencies
	away int
}

// String adds to that of the latencies what does not count.
func (a asked) String() string {
	share := 100 * float64(a.away) / float64(max(a.away+len(a.latencies), 1))
	return fmt.Sprintf("%v; %.1f %% left out, when the host had a core", a.latencies, share)
}

// latencies are sorted.
type latencies []time.Duration

// at returns a quantile.
func (l latencies) at(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(int(q*float64(len(l))), len(l)-1)]
}

// String is p50, p99, p99.9 and the most, and how many were lost.
func (l latencies) String() string {
	lost := 0
	for lost < len(l) && l[len(l)-1-lost] >= lateAfter {
		lost++
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.3f, %.3f, %.3f, %.3f ms of %d, %d lost", ms(l.at(0.5)), ms(l.at(0.99)), ms(l.at(0.999)), ms(l.at(1)), len(l), lost)
}
