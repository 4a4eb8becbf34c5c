package http3

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"anyedge/pop/proxy/exchange"
)

// What an idle connection holds, beside what its client does: the clients are in
// a process of their own, and have made one request each.
func BenchmarkIdleConnection(b *testing.B) {
	if addr := os.Getenv("ANYEDGE_IDLE_CLIENTS"); addr != "" {
		idleClients(b, addr)
		return
	}
	const conns = 500
	for b.Loop() {
		e := handlerServe(b, ok)
		before, goroutines := memory(), runtime.NumGoroutine()
		cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkIdleConnection$", "-test.benchtime=1x", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), "ANYEDGE_IDLE_CLIENTS="+e.addr.String()+" "+strconv.Itoa(conns))
		cmd.Stderr = os.Stderr
		stdin, _ := cmd.StdinPipe()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		await(b, "all are connected", func() bool { return e.count("handshakes:"+handshakeFull) == conns && idle(e.Front) == conns })
		time.Sleep(time.Second) // the last acknowledgements
		b.ReportMetric(float64(memory()-before)/conns, "B/conn")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/conns, "goroutines/conn")
		stdin.Close()
		cmd.Wait()
		e.stop()
	}
}

// idle counts the connections that have served a request and have none.
func idle(f *Front) (n int) {
	for _, c := range f.open() {
		c.mu.Lock()
		if c.active == 0 && c.next > 0 {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// memory is what the process has from the system for heap and stacks in use.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func idleClients(b *testing.B, spec string) {
	addr, count, _ := strings.Cut(spec, " ")
	to, _ := net.ResolveUDPAddr("udp", addr)
	n, _ := strconv.Atoi(count)
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		b.Fatal(err)
	}
	transport := &quic.Transport{Conn: socket, ConnectionIDLength: 8}
	cfg := clientTLS()
	cfg.InsecureSkipVerify = true // the certificate is of another process
	for range n {
		qc, err := transport.Dial(context.Background(), to, cfg, nil)
		if err != nil {
			b.Fatal(err)
		}
		c := (&client{t: b, qc: qc}).greet()
		call := c.begin(get("GET", "/"))
		call.Close()
		call.answer()
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// One small request after the other on a kept connection, client included.
func BenchmarkRequest(b *testing.B) {
	e := handlerServe(b, ok)
	c := e.connect(b).h3()
	b.ReportAllocs()
	for b.Loop() {
		res, err := c.RoundTrip(request(http.MethodGet, "/", nil))
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// A large download, client included.
func BenchmarkDownload(b *testing.B) {
	const size = 8 << 20
	e := handlerServe(b, func(_ context.Context, x *exchange.Exchange) {
		x.Client.Respond(&exchange.Response{Status: 200, Length: size, Body: io.NopCloser(&bulk{n: size})})
	})
	c := e.connect(b).h3()
	b.SetBytes(size)
	for b.Loop() {
		res, err := c.RoundTrip(request(http.MethodGet, "/", nil))
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
