package matrix

//lint:file-ignore SA1019 net/http's own clients refuse the field :protocol

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/http2"
)

// extended is a client that makes of a WebSocket handshake an extended CONNECT
// on a connection of HTTP/2.
type extended struct{ conn *http2.ClientConn }

func newExtended(conn net.Conn) (extended, error) {
	transport := &http2.Transport{AllowHTTP: true}
	client, err := transport.NewClientConn(conn)
	return extended{client}, err
}

// RoundTrip implements [http.RoundTripper].
func (x extended) RoundTrip(req *http.Request) (*http.Response, error) {
	key := req.Header.Get("Sec-WebSocket-Key")
	reader, writer := io.Pipe()
	connect := req.Clone(req.Context())
	connect.Method = http.MethodConnect
	connect.Body = reader
	connect.ContentLength = -1
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		connect.Header.Del(name)
	}
	connect.Header[":protocol"] = []string{"websocket"}
	res, err := x.conn.RoundTrip(connect)
	if err != nil || res.StatusCode != http.StatusOK {
		writer.Close()
		return res, err
	}
	accept := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	res.StatusCode = http.StatusSwitchingProtocols
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", "websocket")
	res.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(accept[:]))
	res.Body = &duplex{res.Body, writer}
	return res, nil
}

// duplex is both directions of a stream.
type duplex struct {
	io.ReadCloser
	writer *io.PipeWriter
}

func (d *duplex) Write(p []byte) (int, error) { return d.writer.Write(p) }

func (d *duplex) Close() error { return errors.Join(d.writer.Close(), d.ReadCloser.Close()) }
