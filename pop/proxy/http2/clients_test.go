package http2

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"anyedge/pop/proxy/exchange"
)

// secured starts a front with TLS.
func secured(t testing.TB, front frontLike) (address string, client *tls.Config) {
	server, pool := certificate()
	return serve(t, front, server), &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}}
}

func TestNetHTTP(t *testing.T) {
	checkBuffers(t)
	checkGoroutines(t)
	address, trust := secured(t, NewFront(config(testServer)))
	transport := &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 3 * patience}
	base := "https://" + address

	var tasks sync.WaitGroup
	for i := range 40 {
		tasks.Go(func() {
			body := make([]byte, 30000*i)
			rand.Read(body)
			req, _ := http.NewRequest("POST", base+"/echo", io.NopCloser(bytes.NewReader(body)))
			req.Trailer = http.Header{"X-Sum": nil}
			req.Body = &trailed{Reader: bytes.NewReader(body), end: func() {
				req.Trailer.Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(body)))
			}}
			res, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d of %d bytes came back: %v", len(got), len(body), err)
			}
			if sum := res.Trailer.Get("X-Sum"); sum != fmt.Sprintf("%x", sha256.Sum256(body)) {
				t.Errorf("trailer %q", sum)
			}
		})
	}
	tasks.Wait()

	res, err := client.Get(base + "/broken")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("a broken response passed for complete")
	}
	for range 20 { // leave in the middle
		if res, err := client.Get(base + "/stream?100000000"); err != nil {
			t.Error(err)
		} else {
			io.CopyN(io.Discard, res.Body, 1<<20)
			res.Body.Close()
		}
	}
}

// trailed is a body that says when it was read.
type trailed struct {
	io.Reader
	end func()
}

func (b *trailed) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.end()
	}
	return n, err
}

func (b *trailed) Close() error { return nil }

// checkGoroutines fails the test if goroutines of this package are left when it
// has ended.
func checkGoroutines(t *testing.T) {
	t.Cleanup(func() {
		stacks := make([]byte, 1<<20)
		for deadline := time.Now().Add(patience); ; runtime.Gosched() {
			n := runtime.Stack(stacks, true)
			left := strings.Count(string(stacks[:n]), "http2.(*conn)")
			if left == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d frames of connections are left:\n%s", left, stacks[:n])
			}
		}
	})
}

// command runs a client that may not be installed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestCommands(t *testing.T) {
	checkBuffers(t)
	front := NewFront(config(testServer))
	secureAddress, _ := secured(t, front)
	for scheme, address := range map[string]string{"https": secureAddress, "http": serve(t, front, nil)} {
		base := scheme + "://" + address
		knowledge := map[string]string{"https": "--http2", "http": "--http2-prior-knowledge"}[scheme]
		t.Run(scheme+"/curl", func(t *testing.T) {
			body := strings.Repeat("body", 100000)
			file := filepath.Join(t.TempDir(), "body")
			os.WriteFile(file, []byte(body), 0o600)
			out := command(t, "curl", "-sk", knowledge, "--data-binary", "@"+file,
				"-w", "|%{http_version}|%{http_code}", base+"/echo")
			if out != body+"|2|200" {
				t.Errorf("%d bytes, ending in %q", len(out), out[max(0, len(out)-40):])
			}
			out = command(t, "curl", "-sk", knowledge, "-D", "-", base+"/early")
			if !strings.Contains(out, "HTTP/2 103") || !strings.Contains(out, "HTTP/2 200") || !strings.HasSuffix(out, "ok") {
				t.Errorf("early hints: %q", out)
			}
		})
		t.Run(scheme+"/nghttp", func(t *testing.T) {
			out := command(t, "nghttp", "-nv", "--no-verify-peer", base+"/stream?300000", base+"/bytes?300000")
			if !strings.Contains(out, "x-sum: 300000") || strings.Contains(out, "RST_STREAM") {
				t.Errorf("%s", out)
			}
		})
		t.Run(scheme+"/h2load", func(t *testing.T) {
			out := command(t, "h2load", "-n2000", "-c4", "-m32", base+"/bytes?20000", base+"/stream?20000", base+"/")
			if !strings.Contains(out, "2000 succeeded, 0 failed") || !strings.Contains(out, "status codes: 2000 2xx") {
				t.Errorf("%s", out)
			}
		})
	}
}

// raw passes messages of gRPC through as bytes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "raw" }

// grpcServer echoes messages; their framing is that of the request.
func grpcServer(_ context.Context, x *exchange.Exchange) {
	r := &exchange.Response{
		Status: 200, Length: -1, Fields: exchange.Fields{{Name: "Content-Type", Value: "application/grpc"}},
		Trailers: &exchange.Fields{{Name: "Grpc-Status", Value: "0"}},
	}
	if !x.Request.AcceptsTrailers || strings.HasSuffix(x.Request.Path, "/Refuse") {
		r.Fields.Add("Grpc-Status", "7")
		r.Trailers = nil
	} else {
		r.Body = x.Request.Body
	}
	x.Client.Respond(r)
}

func TestGRPC(t *testing.T) {
	checkBuffers(t)
	checkGoroutines(t)
	address, trust := secured(t, NewFront(config(grpcServer)))
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
		if err := client.Invoke(ctx, "/test/Echo", &in, &out); err != nil || !bytes.Equal(in, out) {
			t.Errorf("%d bytes: %d came back, %v", size, len(out), err)
		}
	}
	in := []byte("x")
	if err := client.Invoke(ctx, "/test/Refuse", &in, &in); status.Code(err) != codes.PermissionDenied {
		t.Errorf("refused with %v", err)
	}
	stream, err := client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test/Echo")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		in, out := []byte(fmt.Sprint(i)), []byte(nil)
		if err := stream.SendMsg(&in); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&out); err != nil || !bytes.Equal(in, out) {
			t.Fatalf("message %d: %q %v", i, out, err)
		}
	}
	stream.CloseSend()
	var rest []byte
	if err := stream.RecvMsg(&rest); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
