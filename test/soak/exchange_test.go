package soak

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The fields that tie the two ends of an exchange together.
const (
	idField     = "Soak-Id"
	tryField    = "Soak-Try" // on responses: which try of the exchange it answers
	digestName  = "Content-Digest"
	sizeField   = "Soak-Size"
	hintField   = "Soak-Hint"
	closedField = "Soak-Closing"
)

// exchange is a request that a client is about to make, as both ends know it.
type exchange struct {
	*plan
	soak  *soak
	pair  string // front→back
	host  string
	flaky bool // its origins come and go

	sent   atomic.Bool // the client is about to send the request's last byte
	mu     sync.Mutex
	tries  []*try
	begun  time.Time
	hinted int // responses of status 103 that the client got
}

// try is a request of an exchange that an origin got.
type try struct {
	number int
	sent   atomic.Bool   // the origin is about to send the response's last byte
	whole  atomic.Bool   // the origin got the whole request
	ended  chan struct{} // closed when the origin gets no more of the request
}

func (x *exchange) newTry() *try {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := &try{number: len(x.tries), ended: make(chan struct{})}
	x.tries = append(x.tries, t)
	return t
}

func (x *exchange) try(number string) *try {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= len(x.tries) {
		return nil
	}
	return x.tries[n]
}

func (x *exchange) tried() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.tries)
}

// wrong reports what must never happen.
func (x *exchange) wrong(format string, args ...any) {
	x.soak.wrong(x.pair+": "+format, fmt.Sprintf("%s %s: %s", x.pair, x, fmt.Sprintf(format, args...)))
}

// String tells what matters of the plan.
func (x *exchange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s up %s down %d %s", x.id, x.method, x.request, x.status, x.response)
	for name, set := range map[string]bool{"expect": x.expect, "last": x.last, "bare": x.bare, "te": x.te, "old": x.old, "halfway": x.halfway, "tunnel": x.tunnel, "abrupt": x.abrupt, "flaky": x.flaky} {
		if set {
			b.WriteString(" " + name)
		}
	}
	if x.early >= 0 {
		fmt.Fprintf(&b, " early %d", x.early)
	}
	if x.late > 0 {
		fmt.Fprintf(&b, " late %s", x.late)
	}
	if x.client != sound {
		fmt.Fprintf(&b, " [client: %s at %d]", x.client, x.clientAt)
	}
	if x.origin != sound {
		fmt.Fprintf(&b, " [origin: %s at %d]", x.origin, x.originAt)
	}
	return b.String()
}

func (m message) String() string {
	if m.none {
		return "nothing"
	}
	how := "unsized"
	if m.sized {
		how = "sized"
	}
	if m.slow {
		how += ", slow sender"
	}
	if m.reader {
		how += ", slow receiver"
	}
	return fmt.Sprintf("(%d bytes %s)", m.size, how)
}

// errLeft is a receiver's own doing.
var errLeft = errors.New("left as planned")

// receiver checks a body against its plan while it is read.
type receiver struct {
	x     *exchange
	what  string
	m     *message
	got   int64
	count *atomic.Int64 // of the soak
	sum   hash.Hash
	stop  int64 // leave after so many bytes; -1: never
	rand  *rand.Rand
	slept int
}

func (x *exchange) receive(what string, m *message, count *atomic.Int64, stop int64) *receiver {
	return &receiver{x: x, what: what, m: m, count: count, sum: sha256.New(), stop: stop, rand: rand.New(rand.NewPCG(m.pieces, 2))}
}

// all reads a body to its end. nil means that it looked complete.
func (r *receiver) all(body io.Reader) error {
	size := 1 << (4 + r.rand.IntN(13))
	piece := make([]byte, max(size, int(r.m.size/256)))
	for {
		if r.stop >= 0 && r.got >= r.stop {
			return errLeft
		}
		n, err := body.Read(piece)
		if !r.take(piece[:n]) {
			return errors.New("wrong bytes")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if r.m.reader && r.slept < most && r.rand.IntN(2) == 0 {
			r.slept++
			time.Sleep(time.Duration(r.rand.IntN(30)) * time.Millisecond)
		}
	}
}

// take checks a piece. It returns false if a byte is wrong.
func (r *receiver) take(piece []byte) bool {
	r.count.Add(int64(len(piece)))
	r.sum.Write(piece)
	for len(piece) > 0 {
		want := r.m.at(r.got, min(int64(len(piece)), r.m.size-r.got))
		if len(want) == 0 {
			r.x.wrong("%s: goes on behind its end at %d: %.60q", r.what, r.m.size, piece)
			return false
		}
		if !bytes.Equal(piece[:len(want)], want) {
			i := 0
			for piece[i] == want[i] {
				i++
			}
			r.x.wrong("%s: wrong byte at %d: %.60q", r.what, r.got+int64(i), piece[i:])
			return false
		}
		r.got += int64(len(want))
		piece = piece[len(want):]
	}
	return true
}

// complete checks a body that looked complete.
func (r *receiver) complete(head, trailer http.Header, optional bool) {
	if r.got != r.m.size {
		r.x.wrong("%s: looked complete after %d of %d bytes", r.what, r.got, r.m.size)
		return
	}
	told := head.Get(digestName)
	if r.m.trailers {
		if told = trailer.Get(digestName); told == "" && optional {
			return
		}
	}
	if told != digestField(r.sum) {
		r.x.wrong("%s: digest %q in %v %v, want %q", r.what, told, head, trailer, digestField(r.sum))
	}
}
