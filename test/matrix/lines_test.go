package matrix

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serveLines is an origin that answers with the field lines that it got, in
// their order: as a body with one on each line, and as field lines again, those
// that the edge has set left out. It reads them by itself, as net/http keeps no
// order.
func serveLines(t *testing.T, l net.Listener, secured *tls.Config, version int) {
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := closeAtEnd(t.Context(), conn)
			tasks.Go(func() {
				defer stop()
				defer conn.Close()
				if secured != nil {
					conn = tls.Server(conn, secured)
				}
				if version == 2 {
					serveLinesHTTP2(conn)
				} else {
					serveLinesHTTP1(conn)
				}
			})
		}
	})
	t.Cleanup(func() { // t.Context has ended
		l.Close()
		tasks.Wait()
	})
}

// serveLinesHTTP1 answers requests without a body until the edge goes.
func serveLinesHTTP1(conn net.Conn) {
	for r := bufio.NewReader(conn); ; {
		var got []string
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				break
			}
			got = append(got, line)
		}
		body := strings.Join(got[1:], "\n") + "\n"
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n", len(body))
		for _, line := range got[1:] {
			if _, _, ok := numbered(line); ok {
				head += line + "\r\n"
			}
		}
		if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
			return
		}
	}
}

// serveLinesHTTP2 does the same on HTTP/2. What it sends fits into the initial
// windows.
func serveLinesHTTP2(conn net.Conn) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	framer.WriteSettings()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				framer.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			var body strings.Builder
			block.Reset()
			encoder.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			for _, field := range f.RegularFields() {
				line := field.Name + ": " + field.Value
				body.WriteString(line + "\n")
				if name, value, ok := numbered(line); ok {
					encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
				}
			}
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: block.Bytes(), EndHeaders: true})
			framer.WriteData(f.StreamID, true, []byte(body.String()))
		}
	}
}
