//lint:file-ignore SA1019 x/net's server is one of the peers that origins may run

package http2

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"anyedge/pop/proxy/exchange"
)

// runBack returns a back that runs until the test ends; with TLS if secure is
// set.
func runBack(t testing.TB, secure bool) *Back {
	_, pool := certificate()
	b := NewBack(BackConfig{Log: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
		if err != nil || !secure {
			return nc, err
		}
		client := tls.Client(nc, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2"}})
		return client, client.HandshakeContext(ctx)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		b.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	return b
}

// origin is what the tests' servers do.
func origin(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		w.Header().Set("Trailer", "X-Sum")
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
		w.Header().Set("X-Sum", r.Trailer.Get("X-Sum"))
	case "/early":
		w.Header().Set("Link", "</a>")
		w.WriteHeader(103)
		io.WriteString(w, "ok")
	case "/refuse":
		w.WriteHeader(403)
	case "/abort":
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/bytes":
		n, _ := strconv.ParseInt(r.URL.RawQuery, 10, 64)
		io.CopyN(w, zeros{}, n)
	}
}

// netHTTP starts net/http's server, in clear text or with TLS.
func netHTTP(t testing.TB, handler http.Handler, secure bool) netip.AddrPort {
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if secure {
		server.Config.Protocols.SetHTTP2(true)
		server.TLS, _ = certificate()
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
	}
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// xNet starts golang.org/x/net's server.
func xNet(t testing.TB, handler http.Handler) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	quiet := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { new(h2.Server).ServeConn(nc, &h2.ServeConnOpts{Handler: handler, BaseConfig: quiet}) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestBackServers(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (*Back, netip.AddrPort){
		"net/http": func(t *testing.T) (*Back, netip.AddrPort) {
			to := netHTTP(t, http.HandlerFunc(origin), false)
			return runBack(t, false), to
		},
		"net/http with TLS": func(t *testing.T) (*Back, netip.AddrPort) {
			to := netHTTP(t, http.HandlerFunc(origin), true)
			return runBack(t, true), to
		},
		"x/net": func(t *testing.T) (*Back, netip.AddrPort) {
			to := xNet(t, http.HandlerFunc(origin))
			return runBack(t, false), to
		},
	} {
		t.Run(name, func(t *testing.T) {
			checkBuffers(t)
			checkGoroutines(t)
			back, to := start(t)
			testServers(t, back, to)
		})
	}
}

// testServers exchanges what origin serves.
func testServers(t *testing.T, back *Back, to netip.AddrPort) {
	trip := func(r *exchange.Request, inform func(int, exchange.Fields)) (*exchange.Response, []byte, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
		defer cancel()
		r.Authority = "localhost"
		res, err := back.RoundTrip(ctx, to, r, inform)
		if err != nil {
			return nil, nil, err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		copied := *res
		trailers := append(exchange.Fields(nil), *res.Trailers...)
		copied.Trailers = &trailers
		return &copied, body, err
	}
	var tasks sync.WaitGroup
	for i := range 40 {
		tasks.Go(func() {
			body := make([]byte, 20000*(i%20))
			rand.Read(body)
			sum := fmt.Sprintf("%x", sha256.Sum256(body))
			trailers := exchange.Fields{{Name: "X-Sum"}}
			r := &exchange.Request{Method: "POST", Path: "/echo", Length: -1, Trailers: &trailers, Body: &trailed{
				Reader: bytes.NewReader(body), end: func() { trailers[0].Value = sum },
			}}
			res, got, err := trip(r, nil)
			if err != nil || !bytes.Equal(got, body) || res.Trailers.Get("X-Sum") != sum {
				t.Errorf("%d of %d bytes came back: %v", len(got), len(body), err)
			}
			r = &exchange.Request{Method: "POST", Path: "/echo", Length: 1000, Ready: 1000, Body: io.NopCloser(io.LimitReader(zeros{}, 1000))}
			if _, got, err = trip(r, nil); err != nil || len(got) != 1000 {
				t.Errorf("%d of 1000 bytes came back: %v", len(got), err)
			}
		})
	}
	tasks.Wait()
	informed := ""
	res, got, err := trip(&exchange.Request{Method: "GET", Path: "/early"}, func(status int, fields exchange.Fields) {
		informed = fmt.Sprint(status, fields.Get("link"))
	})
	if err != nil || res.Status != 200 || string(got) != "ok" || informed != "103</a>" {
		t.Errorf("%q, %q, %v", informed, got, err)
	}
	if _, got, err = trip(&exchange.Request{Method: "GET", Path: "/abort"}, nil); err == nil {
		t.Errorf("%q passed for complete", got)
	}
	for range 20 {
		r := &exchange.Request{Method: "POST", Path: "/refuse", Length: 2 << 20, Body: io.NopCloser(io.LimitReader(zeros{}, 2<<20))}
		if res, _, err = trip(r, nil); err != nil || res.Status != 403 {
			t.Errorf("%v", err)
		}
	}
	for range 10 { // leave in the middle
		res, err := back.RoundTrip(t.Context(), to, &exchange.Request{Method: "GET", Authority: "localhost", Path: "/bytes?100000000"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.CopyN(io.Discard, res.Body, 300<<10)
		res.Body.Close()
	}
	if _, got, err := trip(&exchange.Request{Method: "GET", Path: "/bytes?5000000"}, nil); err != nil || len(got) != 5000000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Origins that ask for another connection all the time lose no request.
func TestBackServerGoesAway(t *testing.T) {
	checkBuffers(t)
	checkGoroutines(t)
	var served atomic.Int64
	to := netHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1)%50 == 0 {
			w.Header().Set("Connection", "close") // which net/http takes for a GOAWAY
		}
		io.Copy(w, r.Body)
	}), false)
	back := runBack(t, false)
	var tasks sync.WaitGroup
	for range 16 {
		tasks.Go(func() {
			for range 100 {
				res, err := back.RoundTrip(t.Context(), to, newGet(), nil)
				for errors.Is(err, exchange.ErrRefused) { // twice: it is for the caller to go on
					res, err = back.RoundTrip(t.Context(), to, newGet(), nil)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Error(err)
				}
				res.Body.Close()
			}
		})
	}
	tasks.Wait()
	if n := served.Load(); n != 1600 {
		t.Errorf("%d requests were served, want 1600", n)
	}
}

// relay is a front's handler that sends requests on to an origin.
func relay(back *Back, to netip.AddrPort) exchange.Handler {
	return func(ctx context.Context, x *exchange.Exchange) {
		hop, _ := x.Request.Fields.TakeHop()
		x.Request.AcceptsTrailers = hop.Trailers
		res, err := back.RoundTrip(ctx, to, &x.Request, func(status int, fields exchange.Fields) { x.Client.Inform(status, fields) })
		if err != nil {
			respond(x, 502, 0, nil)
			return
		}
		defer res.Body.Close()
		res.Fields.TakeHop()
		if res.Tunnel == nil {
			x.Client.Respond(res)
			return
		}
		client, err := x.Client.Upgrade(res.Fields)
		if err != nil {
			res.Tunnel.Close()
			return
		}
		var up sync.WaitGroup
		up.Go(func() {
			io.Copy(res.Tunnel, client)
			res.Tunnel.CloseWrite()
		})
		io.Copy(client, res.Tunnel)
		client.CloseWrite()
		up.Wait()
		client.Close()
		res.Tunnel.Close()
	}
}

// A client and a server of gRPC, with a front and a back between them.
func TestBackGRPC(t *testing.T) {
	checkBuffers(t)
	checkGoroutines(t)
	certificate, _ := certificate()
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.Creds(credentials.NewTLS(certificate)), grpc.MaxRecvMsgSize(8<<20),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(s)
			if method == "/test/Refuse" {
				return status.Error(codes.PermissionDenied, "no")
			}
			s.SetTrailer(metadata.Pairs("x-sum", "7"))
			for {
				var b []byte
				if err := s.RecvMsg(&b); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(&b); err != nil {
					return err
				}
			}
		}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served, tasks sync.WaitGroup
	served.Go(func() { server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		served.Wait()
	})
	back := runBack(t, true)
	address, trust := secured(t, NewFront(config(relay(back, l.Addr().(*net.TCPAddr).AddrPort()))))
	client, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(trust)),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()

	for _, size := range []int{0, 1, 1 << 10, 1 << 20, 4 << 20} {
		in, out := make([]byte, size), []byte(nil)
		rand.Read(in)
		var trailer metadata.MD
		if err := client.Invoke(ctx, "/test/Echo", &in, &out, grpc.Trailer(&trailer)); err != nil || !bytes.Equal(in, out) || trailer.Get("x-sum")[0] != "7" {
			t.Errorf("%d bytes: %d came back, %v", size, len(out), err)
		}
	}
	in := []byte("x")
	if err := client.Invoke(ctx, "/test/Refuse", &in, &in); status.Code(err) != codes.PermissionDenied {
		t.Errorf("refused with %v", err)
	}
	for range 10 {
		tasks.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Echo")
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 100 {
				in, out := []byte(fmt.Sprint(i)), []byte(nil)
				if err := stream.SendMsg(&in); err != nil {
					t.Error(err)
				}
				if err := stream.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
					t.Errorf("message %d: %q %v", i, out, err)
					return
				}
			}
			stream.CloseSend()
			var rest []byte
			if err := stream.RecvMsg(&rest); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
		})
	}
	tasks.Wait()
	left, leave := context.WithCancel(ctx)
	defer leave()
	stream, err := client.NewStream(left, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Echo")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(&in), stream.RecvMsg(&in)); err != nil {
		t.Fatal(err)
	}
	leave()
	if err := stream.RecvMsg(&in); status.Code(err) != codes.Canceled {
		t.Errorf("after it was left: %v", err)
	}
	server.GracefulStop() // returns when the origin has seen the end of every stream
}

// A WebSocket through a front and a back to another front.
func TestBackTunnel(t *testing.T) {
	checkBuffers(t)
	checkGoroutines(t)
	far := netip.MustParseAddrPort(serve(t, NewFront(config(testServer)), nil))
	middle := netip.MustParseAddrPort(serve(t, NewFront(config(relay(runBack(t, false), far))), nil))
	back := runBack(t, false)
	var tasks sync.WaitGroup
	for range 20 {
		tasks.Go(func() {
			r := newWebSocket()
			res, err := back.RoundTrip(t.Context(), middle, r, nil)
			if err != nil || res.Tunnel == nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			defer res.Tunnel.Close()
			sent := make([]byte, 300000)
			rand.Read(sent)
			tasks.Go(func() {
				res.Tunnel.Write(sent)
				res.Tunnel.CloseWrite()
			})
			if got, err := io.ReadAll(res.Tunnel); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
			}
		})
	}
	tasks.Wait()
}

func TestBackNghttpd(t *testing.T) {
	path, err := exec.LookPath("nghttpd")
	if err != nil {
		t.Skip("nghttpd is not installed")
	}
	checkBuffers(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("body"), 100000), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	server := exec.CommandContext(ctx, path, "--no-tls", "-d", dir, "--echo-upload", "--trailer", "x-sum: 7", "-a", "127.0.0.1", strconv.Itoa(int(to.Port())))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer cancel()
	back := runBack(t, false)
	fetch := func(r *exchange.Request) (status int, body []byte) {
		for {
			res, err := back.RoundTrip(ctx, to, r, func(int, exchange.Fields) {})
			if errors.Is(err, exchange.ErrConnect) && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond) // it is not listening yet
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.Trailers.Get("x-sum") != "7" {
				t.Fatal(res.Trailers, err)
			}
			return res.Status, body
		}
	}
	for range 50 {
		if status, body := fetch(&exchange.Request{Method: "GET", Authority: "localhost", Path: "/file"}); status != 200 || len(body) != 400000 {
			t.Fatalf("status %d, %d bytes", status, len(body))
		}
		const size = 500000
		r := &exchange.Request{Method: "POST", Authority: "localhost", Path: "/", Length: size, Body: io.NopCloser(io.LimitReader(zeros{}, size))}
		if status, body := fetch(r); status != 200 || len(body) != size {
			t.Fatalf("status %d, %d bytes", status, len(body))
		}
	}
}
