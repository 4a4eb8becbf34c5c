package differential

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// recorder is an origin that writes down what it gets, byte by byte.
//
// It answers one request per connection and says so, so whatever else comes on
// the connection is a request that the proxy did not know it sent.
type recorder struct {
	listener net.Listener

	mu       sync.Mutex
	sequence int
	records  []record
	open     map[net.Conn]bool
	closed   bool

	running sync.WaitGroup
}

// record is what came on one connection.
type record struct {
	sequence int // of the first byte, among all connections
	bytes    []byte
}

const (
	// silence is how long the recorder waits for the rest of a request before
	// it answers what it has.
	silence = time.Second
	// linger bounds the wait for the proxy's close after the answer.
	linger = 5 * time.Second
	// most bounds what is recorded of one connection.
	most = 1 << 20
)

func newRecorder() (*recorder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &recorder{listener: l, open: make(map[net.Conn]bool)}
	o.running.Add(1)
	go o.accept()
	return o, nil
}

func (o *recorder) address() netip.AddrPort { return o.listener.Addr().(*net.TCPAddr).AddrPort() }

// close ends all connections and returns what came, in order of arrival.
func (o *recorder) close() []record {
	o.listener.Close()
	o.mu.Lock()
	o.closed = true
	for c := range o.open {
		c.Close()
	}
	o.mu.Unlock()
	o.running.Wait()
	return o.records
}

func (o *recorder) accept() {
	defer o.running.Done()
	for {
		c, err := o.listener.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		if o.closed {
			c.Close()
		} else {
			o.open[c] = true
			o.running.Go(func() { o.serve(c) })
		}
		o.mu.Unlock()
	}
}

// serve records one connection. It waits for a first byte as long as it takes:
// a proxy may keep connections ready.
func (o *recorder) serve(c net.Conn) {
	var r record
	defer func() {
		c.Close()
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.open, c)
		if len(r.bytes) > 0 {
			o.records = append(o.records, r)
		}
	}()
	buf := make([]byte, 64<<10)
	answered := false
	for len(r.bytes) < most {
		n, err := c.Read(buf)
		if n > 0 && len(r.bytes) == 0 {
			o.mu.Lock()
			o.sequence++
			r.sequence = o.sequence
			o.mu.Unlock()
		}
		r.bytes = append(r.bytes, buf[:n]...)
		timeout, _ := err.(net.Error)
		if err != nil && (timeout == nil || !timeout.Timeout() || answered) {
			return
		}
		switch got := strict(r.bytes); {
		case answered:
			continue // only recording what else comes
		case err == nil && (len(got.requests) == 0 || !got.requests[0].complete):
			c.SetReadDeadline(time.Now().Add(silence))
			continue
		default: // complete, or nothing more comes
			answered = true
			body := "ok"
			if len(got.requests) > 0 && got.requests[0].method == "HEAD" {
				body = ""
			}
			c.SetDeadline(time.Now().Add(linger))
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n", body)
			if tcp, ok := c.(interface{ CloseWrite() error }); ok {
				tcp.CloseWrite()
			}
		}
	}
	io.Copy(io.Discard, c)
}
