// Package link carries messages and open descriptors between a node's agent
// and its worker, over one end each of a Unix socketpair.
//
// A message is a kind, a JSON body and up to [MaxFiles] descriptors. Listening
// sockets travel this way, so the agent owns them for as long as it lives, and
// a worker that replaces a crashed one, or an older binary, serves the
// connections that were queueing meanwhile.
//
// # Concurrency
//
// Send may be called by several goroutines, Receive by one. The peer's death
// is seen as [io.EOF] from Receive. A peer that is alive but stopped makes Send
// fail after [SendTimeout] instead of blocking for ever; the link is of no use
// after that, because half a message may be under way.
package link

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxBody bounds a message body, in bytes.
	MaxBody = 64 << 20
	// MaxFiles bounds the descriptors of one message. The kernel's own bound
	// is 253 (SCM_MAX_FD).
	MaxFiles = 128
	// SendTimeout bounds the wait for a peer that does not read.
	SendTimeout = 2 * time.Second

	headerSize = 8 // kind length, file count, reserved, body length
)

// Kind says what a message is about. It has 1 to 255 bytes.
type Kind string

// Message is one message. Whoever receives it owns its Files.
type Message struct {
	Kind  Kind
	Body  json.RawMessage
	Files []*os.File
}

// Decode stores the body in v.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("link: decode %s: %w", m.Kind, err)
	}
	return nil
}

// CloseFiles closes the descriptors that came with the message.
func (m Message) CloseFiles() {
	for _, f := range m.Files {
		f.Close()
	}
}

// Conn is one end of a link.
type Conn struct {
	conn *net.UnixConn
	send sync.Mutex // held for one whole message
}

// Pair makes a link. The caller keeps the first end and hands the file to the
// child process, then closes its own copy.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("link: socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	c, err := FromFile(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// FromFile makes an end from an inherited descriptor and takes it over.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("link: descriptor %d: %w", f.Fd(), err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("link: descriptor %s is a %T, not a Unix socket", f.Name(), c)
	}
	return &Conn{conn: u}, nil
}

// Close ends the link; the peer sees [io.EOF].
func (c *Conn) Close() error { return c.conn.Close() }

// Send writes one message. The files stay the caller's; the peer gets copies.
func (c *Conn) Send(kind Kind, body any, files ...*os.File) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("link: encode %s: %w", kind, err)
	}
	switch {
	case len(kind) == 0 || len(kind) > 255:
		return fmt.Errorf("link: kind of %d bytes", len(kind))
	case len(payload) > MaxBody:
		return fmt.Errorf("link: %s: body of %d bytes is over %d", kind, len(payload), MaxBody)
	case len(files) > MaxFiles:
		return fmt.Errorf("link: %s: %d descriptors are over %d", kind, len(files), MaxFiles)
	}
	frame := make([]byte, headerSize, headerSize+len(kind)+len(payload))
	frame[0], frame[1] = byte(len(kind)), byte(len(files))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(payload)))
	frame = append(append(frame, kind...), payload...)

	var rights []byte
	if len(files) > 0 {
		fds, err := descriptors(files)
		if err != nil {
			return fmt.Errorf("link: send %s: %w", kind, err)
		}
		rights = unix.UnixRights(fds...)
	}

	c.send.Lock()
	defer c.send.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(SendTimeout))
	// The descriptors ride on the header's bytes: the reader asks for exactly
	// those together with them.
	if _, _, err := c.conn.WriteMsgUnix(frame[:headerSize], rights, nil); err != nil {
		return fmt.Errorf("link: send %s: %w", kind, err)
	}
	if _, err := c.conn.Write(frame[headerSize:]); err != nil {
		return fmt.Errorf("link: send %s: %w", kind, err)
	}
	return nil
}

// descriptors returns the files' numbers. It does not call Fd, which may put
// the open file description, shared with whoever got a copy before, into
// blocking mode.
func descriptors(files []*os.File) ([]int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// Receive blocks for the next message. It returns [io.EOF] when the peer has
// closed its end or died between messages.
func (c *Conn) Receive() (Message, error) {
	var m Message
	header, files, err := c.receiveHeader()
	if err != nil {
		return m, err
	}
	m.Files = files
	size := binary.BigEndian.Uint32(header[4:])
	if size > MaxBody || int(header[1]) != len(files) || header[0] == 0 {
		m.CloseFiles()
		return Message{}, fmt.Errorf("link: bad header: %d bytes, %d of %d descriptors", size, len(files), header[1])
	}
	payload := make([]byte, int(header[0])+int(size))
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		m.CloseFiles()
		return Message{}, fmt.Errorf("link: receive: %w", noEOF(err))
	}
	m.Kind, m.Body = Kind(payload[:header[0]]), payload[header[0]:]
	return m, nil
}

// receiveHeader reads one header and the descriptors that ride on it.
func (c *Conn) receiveHeader() (header [headerSize]byte, files []*os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*MaxFiles))
	for got := 0; got < headerSize; {
		n, oobn, flags, _, err := c.conn.ReadMsgUnix(header[got:], oob)
		files = append(files, parseRights(oob[:oobn])...)
		switch {
		case err == nil && flags&unix.MSG_CTRUNC != 0:
			err = errors.New("descriptors were cut off; is the descriptor limit reached?")
		case err == nil && n == 0 && got == 0:
			return header, nil, io.EOF
		case err == nil && n == 0:
			err = io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF) && got == 0:
			return header, nil, io.EOF
		}
		if err != nil {
			Message{Files: files}.CloseFiles()
			return header, nil, fmt.Errorf("link: receive: %w", noEOF(err))
		}
		got += n
	}
	return header, files, nil
}

// parseRights takes the descriptors out of control data. Data that does not
// parse carries none.
func parseRights(oob []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files
}

// noEOF makes an end inside a message an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
