package shield

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Error codes of NOTIFICATION messages (RFC 4271 section 4.5, RFC 7313).
const (
	codeHeader    = 1
	codeOpen      = 2
	codeHoldTimer = 4
	codeState     = 5
	codeCease     = 6
)

// Subcodes of a Cease (RFC 4486, RFC 9384).
const (
	CeaseShutdown     = 2  // administrative shutdown; carries text (RFC 9003)
	CeaseDeconfigured = 3  // peer de-configured
	CeaseReset        = 4  // administrative reset; carries text (RFC 9003)
	CeaseConfigChange = 6  // other configuration change
	CeaseBFDDown      = 10 // BFD down
)

// MaxText is how long the text of a Cease may be, in bytes (RFC 9003 section 2).
const MaxText = 255

// Cease is why this side ends a session. As the cause of a context that Serve
// runs under, it is what the peer is told.
type Cease struct {
	Subcode uint8
	// Text is the shutdown communication of RFC 9003: UTF-8, MaxText bytes at
	// most. Only CeaseShutdown and CeaseReset carry it.
	Text string
}

// Error names the reason.
func (c *Cease) Error() string {
	n := Notification{Code: codeCease, Subcode: c.Subcode, Text: c.Text}
	return n.name()
}

// violation is the message.
func (c *Cease) violation() *violation {
	v := violate(codeCease, c.Subcode, nil)
	if carriesText(codeCease, c.Subcode) {
		v.note.Text = c.Text[:min(len(c.Text), MaxText)]
		v.data = append([]byte{byte(len(v.note.Text))}, v.note.Text...)
	}
	return v
}

func carriesText(code, subcode uint8) bool {
	return code == codeCease && (subcode == CeaseShutdown || subcode == CeaseReset)
}

// Notification is a NOTIFICATION message that ended a session. It is an error
// of that session.
type Notification struct {
	// Code and Subcode are those of RFC 4271 section 4.5 and its registry.
	Code, Subcode uint8
	// Text is the peer's or our own shutdown communication (RFC 9003), if any.
	Text string
	// Sent says that this side sent it; otherwise the peer did.
	Sent bool
}

var codeNames = map[uint8]string{
	codeHeader:    "message header error",
	codeOpen:      "open message error",
	3:             "update message error",
	codeHoldTimer: "hold timer expired",
	codeState:     "finite state machine error",
	codeCease:     "cease",
	7:             "route refresh message error",
}

var subcodeNames = map[[2]uint8]string{
	{codeHeader, 1}:                "connection not synchronized",
	{codeHeader, 2}:                "bad message length",
	{codeHeader, 3}:                "bad message type",
	{codeOpen, 1}:                  "unsupported version number",
	{codeOpen, 2}:                  "bad peer AS",
	{codeOpen, 3}:                  "bad BGP identifier",
	{codeOpen, 4}:                  "unsupported optional parameter",
	{codeOpen, 6}:                  "unacceptable hold time",
	{codeOpen, 7}:                  "unsupported capability",
	{codeState, 1}:                 "unexpected message in OpenSent",
	{codeState, 2}:                 "unexpected message in OpenConfirm",
	{codeState, 3}:                 "unexpected message in Established",
	{codeCease, 1}:                 "maximum number of prefixes reached",
	{codeCease, CeaseShutdown}:     "administrative shutdown",
	{codeCease, CeaseDeconfigured}: "peer de-configured",
	{codeCease, CeaseReset}:        "administrative reset",
	{codeCease, 5}:                 "connection rejected",
	{codeCease, CeaseConfigChange}: "other configuration change",
	{codeCease, 7}:                 "connection collision resolution",
	{codeCease, 8}:                 "out of resources",
	{codeCease, CeaseBFDDown}:      "BFD down",
}

// Error names the notification, for example
// `peer sent notification: cease, administrative shutdown: "maintenance"`.
func (n *Notification) Error() string {
	if n.Sent {
		return "sent notification: " + n.name()
	}
	return "peer sent notification: " + n.name()
}

func (n *Notification) name() string {
	var b strings.Builder
	if name, ok := codeNames[n.Code]; ok {
		b.WriteString(name)
	} else {
		fmt.Fprintf(&b, "code %d", n.Code)
	}
	if name, ok := subcodeNames[[2]uint8{n.Code, n.Subcode}]; ok {
		b.WriteString(", " + name)
	} else if n.Subcode != 0 {
		fmt.Fprintf(&b, ", subcode %d", n.Subcode)
	}
	if n.Text != "" {
		b.WriteString(": " + strconv.Quote(n.Text))
	}
	return b.String()
}

// parseNotification reads a message that readMessage returned.
func parseNotification(msg []byte, sent bool) *Notification {
	body := msg[headerLength:]
	n := &Notification{Code: body[0], Subcode: body[1], Sent: sent}
	data := body[2:]
	if carriesText(n.Code, n.Subcode) && len(data) > 0 {
		text := data[1:]
		text = text[:min(int(data[0]), len(text))]
		n.Text = string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
	}
	return n
}

// violation is what the shield itself has to tell the peer before it closes:
// a protocol error of the peer's, or a Cease.
type violation struct {
	note Notification
	data []byte
}

// violate makes a violation. It copies data.
func violate(code, subcode uint8, data []byte) *violation {
	return &violation{
		note: Notification{Code: code, Subcode: subcode, Sent: true},
		data: bytes.Clone(data),
	}
}

func (v *violation) Error() string { return v.note.Error() }

// Unwrap lets errors.As find the *Notification.
func (v *violation) Unwrap() error { return &v.note }

// message is the NOTIFICATION to send.
func (v *violation) message() []byte {
	return encode(TypeNotification, append([]byte{v.note.Code, v.note.Subcode}, v.data...))
}
