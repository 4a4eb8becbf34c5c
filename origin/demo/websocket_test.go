package demo

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// clientFrame returns a masked frame.
func clientFrame(first byte, payload []byte) []byte {
	out := []byte{first}
	switch n := len(payload); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	var mask [4]byte
	rand.Read(mask[:])
	out = append(out, mask[:]...)
	for i, b := range payload {
		out = append(out, b^mask[i%4])
	}
	return out
}

// serverFrame reads an unmasked frame.
func serverFrame(r *bufio.Reader) (first byte, payload []byte, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return 0, nil, err
	}
	first, n := b[0], uint64(b[1])
	switch {
	case n >= 0x80:
		return 0, nil, errors.New("the server masked a frame")
	case n == 126:
		if _, err := io.ReadFull(r, b[:2]); err != nil {
			return 0, nil, io.ErrUnexpectedEOF
		}
		n = uint64(binary.BigEndian.Uint16(b[:2]))
	case n == 127:
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return 0, nil, io.ErrUnexpectedEOF
		}
		n = binary.BigEndian.Uint64(b[:8])
	}
	if n > maxFrame {
		return 0, nil, errors.New("a frame above the bound")
	}
	payload, err = io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && uint64(len(payload)) < n {
		err = io.ErrUnexpectedEOF
	}
	return first, payload, err
}

const handshake = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// dialWS opens a WebSocket, with more bytes right behind the handshake.
func dialWS(t *testing.T, address string, early []byte) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write(append([]byte(handshake), early...))
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The key and its answer are the example of RFC 6455 Section 1.3.
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get(NameField) != "a" {
		t.Fatalf("handshake: %s %v", resp.Status, resp.Header)
	}
	return conn, r
}

func TestWebSocketEcho(t *testing.T) {
	address, _ := start(t, &Server{Name: "a"})
	conn, r := dialWS(t, address, clientFrame(0x81, []byte("early")))
	large := bytes.Repeat([]byte("0123456789"), 20_000)
	for i, tt := range []struct {
		send byte
		data []byte
		want byte
	}{
		{0, []byte("early"), 0x81}, // sent already
		{0x81, nil, 0x81},
		{0x82, large[:125], 0x82},
		{0x82, large[:126], 0x82},
		{0x82, large[:1<<16-1], 0x82},
		{0x82, large, 0x82},
		{0x01, []byte("frag"), 0x01},
		{0x89, []byte("ping between"), 0x8A},
		{0x00, []byte("men"), 0x00},
		{0x80, []byte("ted"), 0x80},
		{0x88, []byte{3, 0xE8, 'b', 'y', 'e'}, 0x88},
	} {
		if tt.send != 0 || i > 0 {
			if _, err := conn.Write(clientFrame(tt.send, tt.data)); err != nil {
				t.Fatal(err)
			}
		}
		first, data, err := serverFrame(r)
		if err != nil || first != tt.want || !bytes.Equal(data, tt.data) {
			t.Fatalf("sent %#x with %d bytes, got %#x with %d bytes, %v", tt.send, len(tt.data), first, len(data), err)
		}
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the close: %v", err)
	}
}

func TestWebSocketRefusesBrokenFrames(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes []byte
		code  uint16
	}{
		{"unmasked", []byte{0x81, 0}, closeProtocol},
		{"reserved bit", []byte{0xC1, 0x80, 0, 0, 0, 0}, closeProtocol},
		{"reserved opcode", []byte{0x83, 0x80, 0, 0, 0, 0}, closeProtocol},
		{"reserved control opcode", []byte{0x8B, 0x80, 0, 0, 0, 0}, closeProtocol},
		{"fragmented ping", []byte{0x09, 0x80, 0, 0, 0, 0}, closeProtocol},
		{"long ping", clientFrame(0x89, make([]byte, 126)), closeProtocol},
		{"close with half a code", clientFrame(0x88, []byte{3}), closeProtocol},
		{"continuation of nothing", clientFrame(0x80, nil), closeProtocol},
		{"message within a message", clientFrame(0x01, nil), closeProtocol},
		{"above the bound", binary.BigEndian.AppendUint64([]byte{0x82, 0xFF}, maxFrame+1), closeTooBig},
		{"absurd length", []byte{0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, closeTooBig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := append([]byte{}, tt.bytes...)
			if tt.name == "message within a message" {
				in = append(in, in...)
			}
			var out bytes.Buffer
			e := echoer{rw: bufio.NewReadWriter(bufio.NewReader(bytes.NewReader(in)), bufio.NewWriter(&out))}
			var code closeError
			if err := e.run(); !errors.As(err, &code) || uint16(code) != tt.code {
				t.Errorf("error %v, want close code %d", err, tt.code)
			}
			b := out.Bytes()
			if want := []byte{0x88, 2, byte(tt.code >> 8), byte(tt.code)}; !bytes.HasSuffix(b, want) {
				t.Errorf("sent % x, want % x at the end", b, want)
			}
		})
	}
}

func TestWebSocketHandshake(t *testing.T) {
	address, _ := start(t, &Server{})
	for _, tt := range []struct {
		name, old, new string
		code           int
		field, value   string
	}{
		{"no upgrade", "Upgrade: WebSocket\r\n", "", 426, "Upgrade", "websocket"},
		{"not in Connection", "keep-alive, Upgrade", "keep-alive", 426, "Upgrade", "websocket"},
		{"other version", "Version: 13", "Version: 8", 426, "Sec-WebSocket-Version", "13"},
		{"short key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 400, "", ""},
		{"no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "", ""},
		{"method", "GET /ws", "POST /ws", 400, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, strings.Replace(handshake, tt.old, tt.new, 1))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.code || resp.Header.Get(tt.field) != tt.value {
				t.Errorf("%s %v, want %d", resp.Status, resp.Header, tt.code)
			}
		})
	}
}

// A server that ends says so on idle WebSockets and does not wait for them.
func TestWebSocketGoingAway(t *testing.T) {
	address, stop := start(t, &Server{Name: "a", DrainTimeout: time.Minute})
	conn, r := dialWS(t, address, nil)
	conn.Write(clientFrame(0x81, []byte("hello")))
	if _, _, err := serverFrame(r); err != nil {
		t.Fatal(err)
	}
	stop()
	first, data, err := serverFrame(r)
	if err != nil || first != 0x88 || !bytes.Equal(data, []byte{0x03, 0xE9}) {
		t.Errorf("got %#x % x, %v; want a close with 1001", first, data, err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the close: %v", err)
	}
}

func TestSocketsThatComeTooLate(t *testing.T) {
	var s sockets
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s.leave()
	if s.enter(a) {
		t.Error("entered after the server left")
	}
}

// Whatever arrives, the server ends, sends only whole frames except for a last
// one whose input was cut off, and sends nothing after a close.
func FuzzWebSocket(f *testing.F) {
	for _, seed := range [][]byte{
		{},
		{0x81, 0x85, 1, 2, 3, 4, 'i', 'g', 'o', 'h', 'n'},
		{0x01, 0x81, 0, 0, 0, 0, 'a', 0x89, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0},
		{0x82, 0xFE, 0, 200, 0, 0, 0, 0, 'c', 'u', 't'},
		{0x88, 0x82, 0, 0, 0, 0, 3, 0xE8, 0x81, 0x80, 0, 0, 0, 0},
		{0x82, 0xFF, 0, 0, 0, 0, 1, 0, 0, 1},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		e := echoer{rw: bufio.NewReadWriter(bufio.NewReader(bytes.NewReader(in)), bufio.NewWriter(&out))}
		err := e.run()
		e.rw.Flush()
		r := bufio.NewReader(&out)
		closed := false
		for {
			first, _, ferr := serverFrame(r)
			if errors.Is(ferr, io.EOF) {
				break
			}
			if closed {
				t.Fatalf("a frame after the close: % x", in)
			}
			if errors.Is(ferr, io.ErrUnexpectedEOF) {
				if err == nil {
					t.Fatalf("half a frame and no error: % x", in)
				}
				break
			}
			if ferr != nil {
				t.Fatalf("%v: % x", ferr, in)
			}
			closed = first == 0x88
		}
		var code closeError
		if (err == nil || errors.As(err, &code)) != closed {
			t.Fatalf("error %v, close frame sent: %v: % x", err, closed, in)
		}
	})
}
