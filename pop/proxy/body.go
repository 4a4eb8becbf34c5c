package proxy

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"anyedge/pop/proxy/exchange"
)

// upload is a request's body. It may be read by a goroutine of the back codec,
// and then remembers what became of it. A nil upload has nothing.
type upload struct {
	body io.ReadCloser

	reading sync.Mutex // held by Read
	closed  atomic.Bool

	mu  sync.Mutex
	n   int64
	err error // what broke it off first; not io.EOF
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	u.reading.Lock()
	defer u.reading.Unlock()
	n, err := u.body.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n += int64(n)
	if err != nil && err != io.EOF && u.err == nil && (isTimeout(err) || !u.closed.Load()) {
		u.err = err // unless it is our own doing
	}
	return n, err
}

// Close implements [io.Closer]. Read is over when it returns.
func (u *upload) Close() error {
	u.closed.Store(true)
	err := u.body.Close()
	u.reading.Lock()
	defer u.reading.Unlock()
	return err
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

// malformed reports whether the body broke off because of its framing.
func (u *upload) malformed() bool { return errors.Is(u.failure(), exchange.ErrMalformed) }

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
