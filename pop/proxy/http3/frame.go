package http3

import (
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// Types of frames (RFC 9114, 7.2).
const (
	frameData        = 0x0
	frameHeaders     = 0x1
	frameCancelPush  = 0x3
	frameSettings    = 0x4
	framePushPromise = 0x5
	frameGoAway      = 0x7
	frameMaxPushID   = 0xd
)

// frameHeader is the size of the header of a frame that we send: a type of one
// byte and a length of four.
const frameHeader = 5

// maxSkipped bounds the frames of unknown types between two others, in bytes.
const maxSkipped = 64 << 10

func appendVarint(b []byte, n uint64) []byte { return quicvarint.Append(b, n) }

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = appendVarint(append(b, kind), uint64(len(payload)))
	return append(b, payload...)
}

// putFrameHeader writes the header of a frame with n bytes of payload to b.
func putFrameHeader(b []byte, kind byte, n int) {
	b[0], b[1], b[2], b[3], b[4] = kind, 0x80|byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

var (
	errTruncated = &connError{codeFrame, "the stream ends within a frame"}
	errSkipped   = &connError{codeExcessiveLoad, "too much in frames of unknown types"}
)

// input is a stream from the client, read frame by frame. It is never read
// beyond what was asked for, so it needs no buffer.
type input struct {
	r       io.Reader
	end     bool   // the stream has ended
	skipped uint64 // bytes of unknown frames since the last known one
}

// read reads what is at hand, and waits until something is. It returns io.EOF
// at the end of the stream only by itself.
func (in *input) read(p []byte) (int, error) {
	if in.end {
		return 0, io.EOF
	}
	n, err := in.r.Read(p)
	if err == io.EOF {
		in.end = true
		if n > 0 {
			err = nil
		}
	}
	return n, err
}

// full fills p. io.EOF is returned only if the stream ended before the first
// byte, errTruncated if it ended later.
func (in *input) full(p []byte) error {
	for at := 0; at < len(p); {
		n, err := in.read(p[at:])
		if at += n; err != nil {
			if err == io.EOF && at > 0 {
				return errTruncated
			}
			return err
		}
	}
	return nil
}

// varint reads the rest of a variable-length integer whose first byte is known
// (RFC 9000, 16).
func (in *input) varint(first byte) (uint64, error) {
	var rest [7]byte
	size := 1<<(first>>6) - 1
	if err := in.full(rest[:size]); err != nil {
		return 0, within(err)
	}
	n := uint64(first & 0x3f)
	for _, b := range rest[:size] {
		n = n<<8 | uint64(b)
	}
	return n, nil
}

// header reads a frame's header. It returns io.EOF at the end of the stream.
func (in *input) header() (kind, length uint64, err error) {
	var start [2]byte // the least that a header has
	if err = in.full(start[:]); err != nil {
		return 0, 0, err
	}
	if start[0] < 0x40 {
		kind = uint64(start[0])
		length, err = in.varint(start[1])
		return kind, length, err
	}
	size := 1 << (start[0] >> 6)
	kind = uint64(start[0]&0x3f)<<8 | uint64(start[1])
	var rest [7]byte // of the type, and the length's first byte
	if err = in.full(rest[:size-1]); err != nil {
		return 0, 0, within(err)
	}
	for _, b := range rest[:size-2] {
		kind = kind<<8 | uint64(b)
	}
	length, err = in.varint(rest[size-2])
	return kind, length, err
}

// next returns the header of the next frame that is DATA or HEADERS. It passes
// over those of unknown types (RFC 9114, 9) and refuses those that do not
// belong on a request's stream.
func (in *input) next() (kind, length uint64, err error) {
	for {
		kind, length, err = in.header()
		if err != nil {
			return 0, 0, err
		}
		switch kind {
		case frameData, frameHeaders:
			in.skipped = 0
			return kind, length, nil
		case frameCancelPush, frameSettings, framePushPromise, frameGoAway, frameMaxPushID, 0x2, 0x6, 0x8, 0x9:
			return 0, 0, &connError{codeFrameUnexpected, "a frame that does not belong on a request stream"}
		}
		if length > maxSkipped || in.skipped+length+2 > maxSkipped {
			return 0, 0, errSkipped
		}
		in.skipped += length + 2 // an empty one costs too
		if err := in.skip(length); err != nil {
			return 0, 0, err
		}
	}
}

// skip passes over n bytes.
func (in *input) skip(n uint64) error {
	var waste [512]byte
	for n > 0 {
		got, err := in.read(waste[:min(n, uint64(len(waste)))])
		if n -= uint64(got); err != nil && n > 0 {
			return within(err)
		}
	}
	return nil
}

// within makes an end of the stream within a frame what it is.
func within(err error) error {
	if err == io.EOF {
		return errTruncated
	}
	return err
}
