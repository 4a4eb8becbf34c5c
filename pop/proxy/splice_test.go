package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"anyedge/pop/proxy/buffers"
)

// After an upgrade over clear TCP the kernel moves the bytes. The worker's own
// account says what it asked the kernel to move; where splice is not possible
// after all, package net reads and writes behind its back, which the kernel's
// account of the process shows. That is of the whole process, so nothing may run
// beside this test. A wrapper that hides a socket, or its ReadFrom, shows.
func TestTunnelSplices(t *testing.T) {
	const size = 8 << 20 // in each direction
	before, ok := bytesMoved()
	if !ok {
		t.Skip("the kernel keeps no account of a process's input and output")
	}
	e := newEdge(t, serveRaw(t, func(conn net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		io.CopyN(io.Discard, r, int64(len("ahead"))) // what was read with the heads is still copied
		sendBytes(conn, size)
		io.Copy(io.Discard, r)
		io.WriteString(conn, "bye")
	}))
	for _, tt := range []struct {
		listener string
		copies   bool
	}{
		{clear1, false},
		{mixed, false},
		{secure, true},
	} {
		t.Run(tt.listener, func(t *testing.T) {
			c := e.dial(tt.listener)
			if tt.copies {
				c = e.dialTLS("http/1.1")
			}
			before, _ = bytesMoved()
			spliced := metric(t, e, "anyedge_proxy_tunnel_bytes_total", "how", "splice")
			copied := metric(t, e, "anyedge_proxy_tunnel_bytes_total", "how", "copy")
			c.send(upgradeRequest + "ahead")
			c.receive("GET")
			expect(t, c.r, "hello")
			if n, err := io.CopyN(io.Discard, c.r, size); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			sendBytes(c.Conn, size)
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			expect(t, c.r, "bye")
			after, _ := bytesMoved()
			eventually(t, "the tunnel's end", func() bool { return e.worker.Vitals().InFlight == 0 })
			spliced = metric(t, e, "anyedge_proxy_tunnel_bytes_total", "how", "splice") - spliced
			copied = metric(t, e, "anyedge_proxy_tunnel_bytes_total", "how", "copy") - copied
			if most := 2*size - 2*float64(buffers.PieceSize); tt.copies && copied < most || !tt.copies && spliced < most {
				t.Errorf("%v bytes spliced and %v copied, of %d each way", spliced, copied, size)
			}
			// The test's ends read and write each byte once themselves.
			if own := after - before - 4*size; own > size/4 {
				t.Errorf("%d bytes were read and written behind the worker's back", own)
			}
		})
	}
}

// sendBytes writes n bytes.
func sendBytes(w io.Writer, n int) {
	piece := make([]byte, 256<<10)
	for ; n > 0; n -= len(piece) {
		if _, err := w.Write(piece[:min(n, len(piece))]); err != nil {
			return
		}
	}
}

// bytesMoved returns how many bytes this process's reads and writes have moved, in
// sum, and whether that is known.
func bytesMoved() (n int64, ok bool) {
	account, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	var read, written int64
	_, err = fmt.Sscanf(strings.ReplaceAll(string(account), "\n", " "), "rchar: %d wchar: %d", &read, &written)
	return read + written, err == nil
}
