package demo

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// maxFrame bounds one WebSocket frame, in bytes.
const maxFrame = 16 << 20

// farewell bounds the sending of a close frame to a peer that may not read.
const farewell = time.Second

// Opcodes (RFC 6455 Section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Close codes (RFC 6455 Section 7.4.1).
const (
	closeGoingAway = 1001
	closeProtocol  = 1002
	closeTooBig    = 1009
)

// webSocket answers the opening handshake (RFC 6455 Section 4.2) and echoes
// until either side ends.
func (s *Server) webSocket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	nonce, err := base64.StdEncoding.DecodeString(key)
	switch {
	case r.ProtoMajor != 1 || !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection", "upgrade"):
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		refuse(w, http.StatusUpgradeRequired, "WebSocket over HTTP/1.1 only")
		return
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		w.Header().Set("Sec-WebSocket-Version", "13")
		refuse(w, http.StatusUpgradeRequired, "WebSocket version 13 only")
		return
	case r.Method != http.MethodGet || err != nil || len(nonce) != 16:
		refuse(w, http.StatusBadRequest, "bad WebSocket handshake")
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.logger().Debug("demo origin cannot upgrade", "error", err)
		return
	}
	defer conn.Close()
	// The HTTP server may have left a deadline for the request head.
	conn.SetDeadline(time.Time{})
	if !s.sockets.enter(conn) {
		return
	}
	defer s.sockets.exit(conn)
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n%s: %s\r\n\r\n", accept(key), NameField, s.Name)
	e := echoer{rw: rw}
	if err := e.run(); err != nil {
		s.logger().Debug("demo origin websocket ended", "error", err)
	}
}

// accept proves that the handshake was understood (RFC 6455 Section 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func hasToken(h http.Header, field, token string) bool {
	for _, line := range h.Values(field) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// echoer sends every data frame back as it came, fragmented or not, without
// looking at the payload.
type echoer struct {
	rw        *bufio.ReadWriter
	inMessage bool // a fragmented message is under way
}

// frame is a frame's head.
type frame struct {
	final  bool
	opcode byte
	length uint64
	mask   [4]byte
}

func (f frame) control() bool { return f.opcode >= opClose }

// closeError ends a connection with a close code.
type closeError uint16

func (c closeError) Error() string { return fmt.Sprintf("closed with %d", uint16(c)) }

// run echoes until the peer closes, which is nil, or a failure. Between two
// frames it tells the peer why it ends: a frame that breaks the protocol, or the
// deadline of a server that leaves.
func (e *echoer) run() error {
	for {
		// Batched input is answered in one write.
		if e.rw.Reader.Buffered() == 0 {
			if err := e.rw.Flush(); err != nil {
				return err
			}
		}
		f, err := e.head()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = closeError(closeGoingAway)
		}
		var code closeError
		if errors.As(err, &code) {
			e.rw.Write([]byte{0x80 | opClose, 2, byte(code >> 8), byte(code)})
			return errors.Join(err, e.rw.Flush())
		}
		if err != nil {
			return err
		}
		if err := e.answer(f); err != nil {
			return err
		}
		if f.opcode == opClose {
			return e.rw.Flush()
		}
	}
}

// head reads and checks a frame's head (RFC 6455 Section 5.2).
func (e *echoer) head() (frame, error) {
	var b [8]byte
	if _, err := io.ReadFull(e.rw, b[:2]); err != nil {
		return frame{}, err
	}
	f := frame{final: b[0]&0x80 != 0, opcode: b[0] & 0x0F, length: uint64(b[1] & 0x7F)}
	reserved, masked := b[0]&0x70 != 0, b[1]&0x80 != 0
	switch size := f.length; size {
	case 126:
		if _, err := io.ReadFull(e.rw, b[:2]); err != nil {
			return frame{}, err
		}
		f.length = uint64(binary.BigEndian.Uint16(b[:2]))
	case 127:
		if _, err := io.ReadFull(e.rw, b[:8]); err != nil {
			return frame{}, err
		}
		f.length = binary.BigEndian.Uint64(b[:8])
	}
	switch {
	case reserved || !masked:
		return frame{}, closeError(closeProtocol)
	case f.control():
		if f.opcode > opPong || !f.final || f.length > 125 || f.opcode == opClose && f.length == 1 {
			return frame{}, closeError(closeProtocol)
		}
	case f.opcode > opBinary || (f.opcode == opContinuation) != e.inMessage:
		return frame{}, closeError(closeProtocol)
	case f.length > maxFrame:
		return frame{}, closeError(closeTooBig)
	}
	_, err := io.ReadFull(e.rw, f.mask[:])
	return f, err
}

// answer handles a frame's payload.
func (e *echoer) answer(f frame) error {
	opcode := f.opcode
	switch opcode {
	case opPing:
		opcode = opPong
	case opPong:
		_, err := io.CopyN(io.Discard, e.rw, int64(f.length))
		return err
	case opContinuation, opText, opBinary:
		e.inMessage = !f.final
	}
	if err := e.writeHead(f.final, opcode, f.length); err != nil {
		return err
	}
	buf := make([]byte, min(f.length, 32<<10))
	for at := uint64(0); at < f.length; {
		n, err := e.rw.Read(buf[:min(uint64(len(buf)), f.length-at)])
		for i := range n {
			buf[i] ^= f.mask[(at+uint64(i))%4]
		}
		at += uint64(n)
		if _, werr := e.rw.Write(buf[:n]); werr != nil {
			return werr
		}
		if err != nil && at < f.length {
			return err
		}
	}
	return nil
}

func (e *echoer) writeHead(final bool, opcode byte, length uint64) error {
	b := make([]byte, 2, 10)
	b[0] = opcode
	if final {
		b[0] |= 0x80
	}
	switch {
	case length < 126:
		b[1] = byte(length)
	case length < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(length))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, length)
	}
	_, err := e.rw.Write(b)
	return err
}

// sockets tracks upgraded connections, which the HTTP server knows nothing of.
// The zero value is ready.
type sockets struct {
	open sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	leaving bool
}

// enter returns false when the server leaves already.
func (s *sockets) enter(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving {
		return false
	}
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[c] = struct{}{}
	s.open.Add(1)
	return true
}

func (s *sockets) exit(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.open.Done()
}

// leave makes every connection's next read time out, on which it says goodbye.
func (s *sockets) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	for c := range s.conns {
		c.SetReadDeadline(time.Unix(1, 0))
		c.SetWriteDeadline(time.Now().Add(farewell))
	}
}
