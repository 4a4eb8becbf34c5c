package demo

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Full names of the gRPC methods; echo.proto has the service. Requests and
// responses are [wrapperspb.BytesValue].
const (
	MethodUnary = "/" + service + "/Unary"
	MethodBidi  = "/" + service + "/Bidi"

	service = "anyedge.demo.v1.Echo"
)

// newGRPC returns a gRPC server that is served by an HTTP/2 server, through
// ServeHTTP. The service is described by hand: well-known messages need no
// generated code.
func newGRPC() *grpc.Server {
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams:     []grpc.StreamDesc{{StreamName: "Bidi", Handler: bidi, ServerStreams: true, ClientStreams: true}},
		Metadata:    "echo.proto",
	}, nil)
	return s
}

// unary has the signature that grpc asks for. There are no interceptors.
func unary(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	message := new(wrapperspb.BytesValue)
	if err := decode(message); err != nil {
		return nil, err
	}
	return message, nil
}

func bidi(_ any, stream grpc.ServerStream) error {
	for {
		message := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(message); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}
