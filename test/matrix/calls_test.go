package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var callChecks = []check{
	{name: "grpc-unary", impossible: noCalls, run: callUnary},
	{name: "grpc-server-stream", impossible: noCalls, run: callServerStream},
	{name: "grpc-client-stream", impossible: noCalls, run: callClientStream},
	{name: "grpc-bidi", impossible: noCalls, run: callBidi},
	{name: "grpc-status", impossible: noCalls, run: callStatus},
	{name: "grpc-metadata", impossible: noCalls, run: callMetadata},
	{name: "grpc-deadline", impossible: noCalls, run: callDeadline},
	{name: "grpc-cancel", impossible: noCalls, run: callCancel},
}

func noCalls(f *front, b *back) string {
	switch {
	case f.version != 2:
		return "grpc-go's client speaks HTTP/2 only"
	case b.version != 2:
		return "grpc-go's server speaks HTTP/2 only"
	}
	return ""
}

// The methods of the service. Messages are [wrapperspb.BytesValue].
const (
	service      = "anyedge.test.Matrix"
	methodEcho   = "/" + service + "/Echo" // unary
	methodFail   = "/" + service + "/Fail" // unary; always with a status
	methodMany   = "/" + service + "/Many" // one message in, many out
	methodJoin   = "/" + service + "/Join" // many in, their bytes in one out
	methodBidi   = "/" + service + "/Bidi" // one out for each in
	methodHang   = "/" + service + "/Hang" // until the client is gone; the message is an id
	manyMessages = 200
)

// serveCalls serves the checks over grpc-go.
func serveCalls(t *testing.T, l net.Listener, s *grpc.Server) {
	unary := func(name string, handle func(context.Context, *wrapperspb.BytesValue) (any, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return handle(ctx, in)
		}}
	}
	stream := func(name string, handle func(grpc.ServerStream) error) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error { return handle(s) }}
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Echo", echoCall), unary("Hang", hangCall),
			unary("Fail", func(context.Context, *wrapperspb.BytesValue) (any, error) { return nil, failure().Err() }),
		},
		Streams: []grpc.StreamDesc{stream("Many", manyCall), stream("Join", joinCall), stream("Bidi", bidiCall)},
	}, nil)
	var task sync.WaitGroup
	task.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Stop()
		task.Wait()
	})
}

// failure is a status with all that one can have.
func failure() *status.Status {
	s, err := status.New(codes.FailedPrecondition, "50% of: größe, \"line\"\nfeed").WithDetails(wrapperspb.String("detail"))
	if err != nil {
		panic(err)
	}
	return s
}

// echoCall returns the message, and the metadata of the matrix as header and as
// trailer.
func echoCall(ctx context.Context, in *wrapperspb.BytesValue) (any, error) {
	came, _ := metadata.FromIncomingContext(ctx)
	for key := range came {
		if !strings.HasPrefix(key, "matrix-") {
			delete(came, key)
		}
	}
	trailer := metadata.MD{}
	for key, values := range came {
		trailer["trailer-"+key] = values
	}
	grpc.SetTrailer(ctx, trailer)
	return in, grpc.SetHeader(ctx, came)
}

func hangCall(ctx context.Context, in *wrapperspb.BytesValue) (any, error) {
	event := events.of(string(in.Value))
	_, has := ctx.Deadline()
	event <- fmt.Sprint("came, deadline: ", has)
	<-ctx.Done()
	event <- "gone"
	return nil, status.FromContextError(ctx.Err()).Err()
}

func manyCall(s grpc.ServerStream) error {
	in := new(wrapperspb.BytesValue)
	if err := s.RecvMsg(in); err != nil {
		return err
	}
	for i := range manyMessages {
		if err := s.SendMsg(wrapperspb.Bytes(bytes.Repeat(in.Value, i))); err != nil {
			return err
		}
	}
	return nil
}

func joinCall(s grpc.ServerStream) error {
	var all []byte
	for {
		in := new(wrapperspb.BytesValue)
		if err := s.RecvMsg(in); err == io.EOF {
			return s.SendMsg(wrapperspb.Bytes(all))
		} else if err != nil {
			return err
		}
		all = append(all, in.Value...)
	}
}

func bidiCall(s grpc.ServerStream) error {
	for {
		in := new(wrapperspb.BytesValue)
		if err := s.RecvMsg(in); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
}

// connect returns a client of the service.
func (c *cell) connect() *grpc.ClientConn {
	c.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.back.host(calls),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // front.dial does TLS
		grpc.WithAuthority(c.back.host(calls)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.front.dial(ctx, c.edge) }))
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	return conn
}

func callUnary(c *cell) {
	conn := c.connect()
	for _, size := range []int64{0, 1, 1 << 10, 1 << 20, 3 << 20} {
		in, _ := io.ReadAll(content(1, size))
		out := new(wrapperspb.BytesValue)
		if err := conn.Invoke(c.ctx, methodEcho, wrapperspb.Bytes(in), out); err != nil || !bytes.Equal(in, out.Value) {
			c.Errorf("%d bytes: %d came back, %v", size, len(out.Value), err)
		}
	}
}

// stream begins a call of a streaming method.
func (c *cell) stream(method string) grpc.ClientStream {
	c.Helper()
	s, err := c.connect().NewStream(c.ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		c.Fatal(err)
	}
	return s
}

// exchange sends a message, if there is one, and receives one.
func exchange(s grpc.ClientStream, in []byte) ([]byte, error) {
	if in != nil {
		if err := s.SendMsg(wrapperspb.Bytes(in)); err != nil {
			return nil, err
		}
	}
	out := new(wrapperspb.BytesValue)
	err := s.RecvMsg(out)
	return out.Value, err
}

func callServerStream(c *cell) {
	s := c.stream(methodMany)
	if err := errors.Join(s.SendMsg(wrapperspb.Bytes([]byte("abc"))), s.CloseSend()); err != nil {
		c.Fatal(err)
	}
	for i := range manyMessages {
		if out, err := exchange(s, nil); err != nil || len(out) != 3*i {
			c.Fatalf("message %d: %d bytes, %v", i, len(out), err)
		}
	}
	if _, err := exchange(s, nil); err != io.EOF {
		c.Errorf("at the end: %v", err)
	}
}

func callClientStream(c *cell) {
	s := c.stream(methodJoin)
	var want []byte
	for i := range manyMessages {
		piece, _ := io.ReadAll(content(uint64(i), int64(10*i)))
		want = append(want, piece...)
		if err := s.SendMsg(wrapperspb.Bytes(piece)); err != nil {
			c.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		c.Fatal(err)
	}
	if out, err := exchange(s, nil); err != nil || !bytes.Equal(out, want) {
		c.Errorf("%d of %d bytes, %v", len(out), len(want), err)
	}
}

// callBidi has each answer wait for its question, so that nothing may be held
// back anywhere.
func callBidi(c *cell) {
	s := c.stream(methodBidi)
	for i := range manyMessages {
		in, _ := io.ReadAll(content(uint64(i), int64(1+i)))
		if out, err := exchange(s, in); err != nil || !bytes.Equal(in, out) {
			c.Fatalf("message %d: %d bytes, %v", i, len(out), err)
		}
	}
	s.CloseSend()
	if _, err := exchange(s, nil); err != io.EOF {
		c.Errorf("at the end: %v", err)
	}
}

func callStatus(c *cell) {
	conn := c.connect()
	want := failure()
	err := conn.Invoke(c.ctx, methodFail, wrapperspb.Bytes(nil), new(wrapperspb.BytesValue))
	if got := status.Convert(err); got.Code() != want.Code() || got.Message() != want.Message() || len(got.Details()) != 1 {
		c.Errorf("status %v, want %v", got, want)
	}
	err = conn.Invoke(c.ctx, "/"+service+"/Nothing", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue))
	if status.Code(err) != codes.Unimplemented {
		c.Errorf("unknown method: %v", err)
	}
}

func callMetadata(c *cell) {
	sent := metadata.MD{"matrix-text": {"one", "two, three"}, "matrix-bytes-bin": {"\x00\xff\n", ""}}
	var head, trailer metadata.MD
	err := c.connect().Invoke(metadata.NewOutgoingContext(c.ctx, sent), methodEcho, wrapperspb.Bytes(nil),
		new(wrapperspb.BytesValue), grpc.Header(&head), grpc.Trailer(&trailer))
	if err != nil {
		c.Fatal(err)
	}
	for key, want := range sent {
		for _, got := range [][]string{head[key], trailer["trailer-"+key]} {
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				c.Errorf("%s: %q, want %q", key, got, want)
			}
		}
	}
}

func callDeadline(c *cell) {
	event := events.of(c.name)
	ctx, cancel := context.WithTimeout(c.ctx, 300*time.Millisecond)
	defer cancel()
	err := c.connect().Invoke(ctx, methodHang, wrapperspb.Bytes([]byte(c.name)), new(wrapperspb.BytesValue))
	// The origin's clock may ring first: it then resets the stream, and the edge
	// has no answer to pass on.
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
		c.Errorf("%v", err)
	}
	c.await(event, "came, deadline: true")
	c.await(event, "gone")
}

func callCancel(c *cell) {
	event := events.of(c.name)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx)) // a deadline would be sent
	defer cancel()
	done := make(chan error, 1)
	conn := c.connect()
	go func() {
		done <- conn.Invoke(ctx, methodHang, wrapperspb.Bytes([]byte(c.name)), new(wrapperspb.BytesValue))
	}()
	c.await(event, "came, deadline: false")
	cancel()
	if err := <-done; status.Code(err) != codes.Canceled {
		c.Errorf("%v", err)
	}
	c.await(event, "gone")
}
