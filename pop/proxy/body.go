package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"anyedge/pop/proxy/buffers"
	"anyedge/pop/proxy/exchange"
)

// upload is a request's body. It may be read by a goroutine of the back codec,
// and then remembers what became of it; a short one can be read again for
// another try. A nil upload has nothing.
type upload struct {
	body   io.ReadCloser
	keep   bool        // what is read is kept while it is short
	trying atomic.Bool // no response has come yet
	closed atomic.Bool // the present try reads no more

	reading sync.Mutex // held by Read; guards what follows
	kept    *buffers.Buffer
	filled  int  // of kept
	at      int  // of kept, where the present try reads
	whole   bool // the body's end was read
	lost    bool // more was read than is kept

	mu   sync.Mutex
	n    int64
	err  error // what broke it off first; not io.EOF
	over bool  // closed for good
}

func newUpload(body io.ReadCloser, keep bool) *upload {
	u := &upload{body: body, keep: keep}
	u.trying.Store(true)
	return u
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	switch {
	case u.closed.Load():
		return 0, net.ErrClosed
	case u.at < u.filled:
		n := copy(p, u.kept.Bytes[u.at:u.filled])
		u.at += n
		return n, nil
	case u.whole:
		return 0, io.EOF
	}
	n, err := u.body.Read(p)
	u.remember(p[:n])
	u.whole = err == io.EOF
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n += int64(n)
	if err != nil && err != io.EOF && u.err == nil && (isTimeout(err) || !u.closed.Load()) {
		u.err = err // unless it is our own doing
	}
	return n, err
}

// remember keeps a piece that was read.
func (u *upload) remember(p []byte) {
	if len(p) == 0 || u.lost {
		return
	}
	if !u.keep || !u.trying.Load() || u.filled+len(p) > buffers.PieceSize {
		u.lost = true
		u.forget()
		return
	}
	if u.kept == nil {
		u.kept = buffers.Take(buffers.PieceSize)
	}
	u.filled += copy(u.kept.Bytes[u.filled:], p)
	u.at = u.filled
}

func (u *upload) forget() {
	buffers.Give(u.kept)
	u.kept, u.filled, u.at = nil, 0, 0
}

// Close implements [io.Closer]. Read is over when it returns. Before there is a
// response it ends the present try only, unless it has to break a Read off.
func (u *upload) Close() error {
	u.closed.Store(true)
	if u.trying.Load() && u.reading.TryLock() {
		u.reading.Unlock()
		return nil
	}
	return u.end()
}

// end closes the body for good.
func (u *upload) end() error {
	u.closed.Store(true)
	u.mu.Lock()
	u.over = true
	u.mu.Unlock()
	err := u.body.Close()
	u.reading.Lock()
	defer u.reading.Unlock()
	return err
}

// rewind makes the body ready for another try, and returns whether that is
// possible.
func (u *upload) rewind() bool {
	if u == nil {
		return true
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.lost || u.over || u.err != nil {
		return false
	}
	u.at = 0
	u.closed.Store(false)
	return true
}

// atHand returns how much of a rewound body is read without waiting for the
// client.
func (u *upload) atHand() int64 {
	u.reading.Lock()
	defer u.reading.Unlock()
	return int64(u.filled)
}

// settle says that there is a response: no other try follows.
func (u *upload) settle() {
	if u != nil {
		u.trying.Store(false)
	}
}

// free gives the memory back. Nothing is read afterwards.
func (u *upload) free() {
	u.closed.Store(true)
	if !u.reading.TryLock() {
		u.body.Close()
		u.reading.Lock()
	}
	defer u.reading.Unlock()
	u.forget()
}

// failure returns what broke the body off.
func (u *upload) failure() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// received returns how many bytes were taken from the client.
func (u *upload) received() int64 {
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n
}

// download is a response's body.
type download struct {
	body io.ReadCloser
	x    *exchange.Exchange
	err  error // what broke it off; not io.EOF
}

// Read implements [io.Reader].
func (d *download) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.x.Sent += int64(n)
	if err != nil && err != io.EOF {
		d.err = err
	}
	return n, err
}

// Close implements [io.Closer].
func (d *download) Close() error { return d.body.Close() }

// isTimeout reports whether a codec gave up on a client's body.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// ownBody is the body of a response in the worker's own name.
type ownBody struct{ text []byte }

// Read implements [io.Reader].
func (b *ownBody) Read(p []byte) (int, error) {
	n := copy(p, b.text)
	if b.text = b.text[n:]; len(b.text) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// Close implements [io.Closer].
func (*ownBody) Close() error { return nil }
