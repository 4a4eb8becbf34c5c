package exchange

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
)

// ErrAccept is an answer that does not prove that the origin has seen the key.
var ErrAccept = fmt.Errorf("%w: the answer to the WebSocket's key is wrong", ErrHandshake)

// AskWebSocket makes an extended CONNECT what it is on HTTP/1.1: a GET that asks for
// an upgrade. The key that HTTP/2 and HTTP/3 do without is ours (RFC 8441, 5; RFC
// 9220, 3), and is returned.
func (r *Request) AskWebSocket() (key string) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key = base64.StdEncoding.EncodeToString(nonce[:])
	r.Method, r.Length = "GET", 0
	r.Fields.Del("Sec-WebSocket-Key")
	r.Fields.Add("sec-websocket-key", key)
	return key
}

// WebSocketAccept returns what proves that a Sec-WebSocket-Key was seen (RFC 6455,
// 1.3 and 4.2.2).
func WebSocketAccept(key string) string {
	digest := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(digest[:])
}
