package link

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestBodyArrivesWhole(t *testing.T) {
	a, b := pair(t)
	want := strings.Repeat("snapshot ", 1<<17) // far over a socket buffer
	sent := make(chan error, 1)
	go func() { sent <- a.Send("snapshot", want) }()
	m, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := m.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if m.Kind != "snapshot" || got != want {
		t.Errorf("received %s of %d bytes, want snapshot of %d", m.Kind, len(got), len(want))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestListenerSurvivesTheTrip(t *testing.T) {
	a, b := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	// A connection that queues before anybody accepts must be served by
	// whoever gets the socket.
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := a.Send("sockets", []string{"web"}, f); err != nil {
		t.Fatal(err)
	}
	f.Close()

	m, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer m.CloseFiles()
	if len(m.Files) != 1 {
		t.Fatalf("received %d descriptors, want 1", len(m.Files))
	}
	received, err := net.FileListener(m.Files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer received.Close()
	server, err := received.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got, want := server.RemoteAddr().String(), client.LocalAddr().String(); got != want {
		t.Errorf("accepted %s, want %s", got, want)
	}
}

// Descriptors of messages sent back to back must not be mixed up.
func TestDescriptorsStayWithTheirMessage(t *testing.T) {
	a, b := pair(t)
	for i := range 5 {
		files := make([]*os.File, i)
		for j := range files {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files[j] = f
		}
		if err := a.Send("sockets", i, files...); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		m.CloseFiles()
		var n int
		if err := m.Decode(&n); err != nil || n != i || len(m.Files) != i {
			t.Errorf("message %d: body %d, %d descriptors, %v", i, n, len(m.Files), err)
		}
	}
}

func TestConcurrentSendersDoNotInterleave(t *testing.T) {
	a, b := pair(t)
	const senders, each = 4, 50
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			body := strings.Repeat(string(rune('a'+s)), 10_000)
			for range each {
				if err := a.Send("vitals", body); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range senders * each {
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var body string
		if err := m.Decode(&body); err != nil {
			t.Fatal(err)
		}
		if strings.Trim(body, body[:1]) != "" {
			t.Fatal("two messages were mixed")
		}
	}
	wg.Wait()
}

func TestPeerDeath(t *testing.T) {
	a, b := pair(t)
	a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("Receive after the peer closed: %v, want EOF", err)
	}

	a, b = pair(t)
	if _, err := a.conn.Write([]byte{3, 0, 0}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Receive of half a header: %v, want ErrUnexpectedEOF", err)
	}
}

func TestStoppedPeerDoesNotBlockForEver(t *testing.T) {
	a, _ := pair(t)
	body := strings.Repeat("x", 4<<20)
	start := time.Now()
	err := a.Send("snapshot", body)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Send to a peer that does not read: %v after %v, want a timeout", err, time.Since(start))
	}
}

func TestRefusals(t *testing.T) {
	a, b := pair(t)
	if err := a.Send("", nil); err == nil {
		t.Error("an empty kind was sent")
	}
	if err := a.Send("k", func() {}); err == nil {
		t.Error("a body that does not encode was sent")
	}
	// A header that promises a descriptor that did not come.
	if _, err := a.conn.Write([]byte{1, 1, 0, 0, 0, 0, 0, 0, 'k'}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(); err == nil {
		t.Error("a message without its descriptors was received")
	}
}
