package edge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Load is a steady client: it sends so many requests a second to the service
// address, each over a TLS connection of its own or over connections that it
// keeps, and notes what became of them. The pace is that of the clock,
// whatever becomes of earlier requests.
type Load struct {
	// Connections are kept, and take the requests in turn, each one at a time; 0
	// has every request open its own. Set it before Run.
	Connections int
	// Repeat sends a request once more, over another connection, when the first
	// broke before its timeout, as RFC 9110 section 9.2.2 allows for a GET. A
	// change of routes breaks the connections that are open at that moment, and
	// nothing in the network can help that. Set it before Run.
	Repeat bool

	lab     *Lab
	from    string
	v6      bool
	rate    int
	timeout time.Duration

	kept []keptConnection

	mu      sync.Mutex
	results []Result // by the end of the request
}

// keptConnection is nil before the first request and after a failure.
type keptConnection struct {
	*connection
	free chan struct{} // holds one while no request uses it
}

// maxInFlight bounds the requests under way. More means that every request
// has been failing for many seconds, and then one more fails too.
const maxInFlight = 4096

var errInFlight = errors.New("too many requests under way")

// Result is what became of one request.
type Result struct {
	Start, End time.Time
	// Opened is when its connection began, or the first of the two.
	Opened time.Time
	Answer // empty after a failure
	Err    error
	// Broken is why the first connection of a request that was repeated broke,
	// and BrokenAt is when.
	Broken   error
	BrokenAt time.Time
}

// NewLoad makes a load of rate requests a second, 1 to 5000, from a client over
// one family. The timeout bounds each request.
func (l *Lab) NewLoad(from string, v6 bool, rate int, timeout time.Duration) *Load {
	return &Load{lab: l, from: from, v6: v6, rate: rate, timeout: timeout}
}

// Run sends until ctx ends, then waits for what is under way, which is not cut
// short.
func (l *Load) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	requests := context.WithoutCancel(ctx)
	l.kept = make([]keptConnection, l.Connections)
	for i := range l.kept {
		l.kept[i].free = make(chan struct{}, 1)
		l.kept[i].free <- struct{}{}
	}
	defer l.hangUp()
	defer wg.Wait()
	pace := time.Second / time.Duration(l.rate)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for start, n := time.Now(), 0; ; n++ {
		// A late one goes out at once: clients do not stay away because the
		// machine that plays them is busy.
		timer.Reset(time.Until(start.Add(time.Duration(n) * pace)))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() { l.request(requests, n); <-slots })
		default:
			now := time.Now()
			l.add(Result{Start: now, End: now, Err: errInFlight})
		}
	}
}

func (l *Load) request(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	r := Result{Start: time.Now()}
	once := l.onNew
	if l.Connections > 0 {
		once = func(ctx context.Context) (Answer, time.Time, error) { return l.onKept(ctx, &l.kept[n%l.Connections]) }
	}
	r.Answer, r.Opened, r.Err = once(ctx)
	if l.Repeat && r.Err != nil && ctx.Err() == nil {
		r.Broken, r.BrokenAt = r.Err, time.Now()
		r.Answer, _, r.Err = once(ctx)
	}
	r.End = time.Now()
	l.add(r)
}

// onNew sends a request over a connection of its own, and says when that began.
func (l *Load) onNew(ctx context.Context) (Answer, time.Time, error) {
	opened := time.Now()
	c, err := l.lab.connectFrom(ctx, l.from, l.v6)
	if err != nil {
		return Answer{}, opened, err
	}
	defer c.Close()
	a, err := c.get(ctx, false)
	return a, opened, err
}

// onKept sends a request over a kept connection, which it opens first if need
// be. One that broke is not kept.
func (l *Load) onKept(ctx context.Context, k *keptConnection) (a Answer, opened time.Time, err error) {
	opened = time.Now()
	select {
	case <-k.free:
		defer func() { k.free <- struct{}{} }()
	case <-ctx.Done():
		return a, opened, &StageError{Connect, errors.New("the connections are all busy")}
	}
	if k.connection == nil {
		if k.connection, err = l.lab.connectFrom(ctx, l.from, l.v6); err != nil {
			return a, opened, err
		}
	}
	opened = k.opened
	if a, err = k.get(ctx, true); err != nil || k.last {
		k.Close()
		k.connection = nil
	}
	return a, opened, err
}

// hangUp closes what is kept.
func (l *Load) hangUp() {
	for i := range l.kept {
		if c := l.kept[i].connection; c != nil {
			c.Close()
		}
	}
}

func (l *Load) add(r Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results = append(l.results, r)
}

// Results returns what has ended so far, in the order of the ends.
func (l *Load) Results() Results {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(Results(nil), l.results...)
}

// Results are requests in the order of their ends.
type Results []Result

// Failed returns those that failed.
func (rs Results) Failed() Results {
	var failed Results
	for _, r := range rs {
		if r.Err != nil {
			failed = append(failed, r)
		}
	}
	return failed
}

// Repeated returns those that took a second connection.
func (rs Results) Repeated() Results {
	var repeated Results
	for _, r := range rs {
		if r.Broken != nil {
			repeated = append(repeated, r)
		}
	}
	return repeated
}

// After returns those that began at t or later.
func (rs Results) After(t time.Time) Results {
	var after Results
	for _, r := range rs {
		if !r.Start.Before(t) {
			after = append(after, r)
		}
	}
	return after
}

// FirstServed returns the end of the earliest request that was served by whom
// match accepts.
func (rs Results) FirstServed(match func(Answer) bool) (first time.Time, ok bool) {
	for _, r := range rs {
		if r.Err == nil && match(r.Answer) {
			return r.End, true
		}
	}
	return first, false
}

// LastServed returns the end of the latest such request.
func (rs Results) LastServed(match func(Answer) bool) (last time.Time, ok bool) {
	for _, r := range rs {
		if r.Err == nil && match(r.Answer) && r.End.After(last) {
			last, ok = r.End, true
		}
	}
	return last, ok
}

// Recovery returns how long after t the last failing request began, and so how
// long some new connections failed; zero when none did.
func (rs Results) Recovery(t time.Time) time.Duration {
	var last time.Duration
	for _, r := range rs.After(t).Failed() {
		last = max(last, r.Start.Sub(t))
	}
	return last
}

// Count returns how many requests each PoP served.
func (rs Results) Count() map[string]int {
	n := make(map[string]int)
	for _, r := range rs {
		if r.Err == nil {
			n[r.Pop]++
		}
	}
	return n
}

// String sums the results up, with the first failures.
func (rs Results) String() string {
	failed := rs.Failed()
	s := fmt.Sprintf("%d requests, %d failed, %d repeated, served by %v", len(rs), len(failed), len(rs.Repeated()), rs.Count())
	for i, r := range failed {
		if i == 5 {
			s += "\n\t…"
			break
		}
		s += fmt.Sprintf("\n\t%s after %s: %v", r.Start.Format("15:04:05.000"), r.End.Sub(r.Start).Round(time.Millisecond), r.Err)
	}
	return s
}
