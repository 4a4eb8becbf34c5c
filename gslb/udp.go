package gslb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serveUDP answers what comes to a socket, until ctx is done; then it returns
// nil, after what had come was answered.
func (s *Server) serveUDP(ctx context.Context, socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		// A shutdown wakes the thread that waits in the system call. The kernel
		// says ENOTCONN and does it all the same.
		stop := context.AfterFunc(ctx, func() { unix.Shutdown(int(fd), unix.SHUT_RD) })
		defer stop()
		failed = s.answerBatches(ctx, fd)
	})
	if failed != nil {
		return fmt.Errorf("gslb: receive: %w", failed)
	}
	return err
}

// adaptEvery is how often the priority of a thread follows its load. It is also
// for how long a flood has it.
const adaptEvery = 20 * time.Millisecond

// answerBatches receives and answers batch after batch. Nothing in an answer
// waits.
func (s *Server) answerBatches(ctx context.Context, fd uintptr) error {
	b := newBatch()
	r := udpReader{Server: s, tally: newTally(s.m), now: time.Now()}
	priority := newRealtime(r.now)
	if priority.refused != nil {
		s.ordinary.Do(func() { s.log.Info("queries are answered at ordinary priority", "error", priority.refused) })
	}
	n := 0
	for {
		if r.now.Sub(priority.looked) > adaptEvery {
			priority.adapt(r.now)
		}
		if 1 < n && n < batchSize && !priority.raised {
			// Under load others who want the core go first: more queries come
			// together meanwhile, and each costs less. A core without others goes
			// on at once, and so does a socket with more than a batch to answer.
			syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		var err error
		n, err = b.receive(fd)
		if err != nil {
			return err
		}
		if ctx.Err() != nil && b.in[0].length == 0 {
			return nil
		}
		r.view, r.now = s.view.Load(), time.Now()
		for i := range n {
			r.answer(b, i)
		}
		r.tally.flush()
		if failed := b.send(fd); failed > 0 {
			s.m.dropped.WithLabelValues(dropWrite).Add(float64(failed))
		}
	}
}

// udpReader answers the queries of one socket.
type udpReader struct {
	*Server
	view  *view
	now   time.Time // of the batch
	query fastQuery
	tally *tally
}

// answer answers one datagram: on the fast path if that can.
func (r *udpReader) answer(b *batch, i int) {
	defer r.recovered()
	msg, from := b.query(i)
	req := request{msg: msg, from: from, now: uint32(r.now.Unix()), random: rand.Uint64()}
	answer, fast, ok := r.view.respondFast(&r.query, req, b.buffer(i))
	if ok {
		if !fast.known && r.limiter != nil {
			if act := r.limiter.actFast(from, &fast, r.now, req.random); act != sendAnswer {
				r.limited(b, i, req, act)
				return
			}
		}
		r.tally.count(r.view, &fast)
		if fast.steered && sampled(req.random) {
			r.asked.note(r.askClient(from), &fast.reply)
		}
		b.answer(i, answer)
		if r.logQueries.Load() {
			r.logFast(req, answer, fast)
		}
		return
	}
	out := r.respond(r.view, req, nil)
	if out.msg != nil && !out.known && r.limiter != nil {
		var act action
		if fast.which != nil { // with signatures it is one all the same
			act = r.limiter.actFast(from, &fast, r.now, req.random)
		} else {
			act = r.limiter.act(from, r.limiter.answer(&out, out.name), r.now, req.random)
		}
		if act != sendAnswer {
			r.limited(b, i, req, act)
			return
		}
	}
	r.count(req, &out)
	r.logQuery(req, out.msg, out.steered)
	if out.msg != nil {
		b.answer(i, out.msg)
	}
}

// limited does with an answer over the rate limit what is to become of it.
func (r *udpReader) limited(b *batch, i int, req request, act action) {
	if act == dropAnswer {
		r.m.dropped.WithLabelValues(dropRate).Inc()
		r.logQuery(req, nil, nil)
		return
	}
	req.short = true
	out := r.view.respond(req)
	r.m.count(req, out)
	r.logQuery(req, out.msg, out.steered)
	b.answer(i, out.msg)
}

// recovered ends a fault of the server with the query that hit it, instead of
// the process. It is for defer.
func (s *Server) recovered() {
	if fault := recover(); fault != nil {
		s.m.panics.Inc()
		s.log.Error("query ended in a fault", "fault", fault, "stack", string(debug.Stack()))
	}
}
