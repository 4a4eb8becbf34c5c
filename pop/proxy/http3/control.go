package http3

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Types of one-way streams (RFC 9114, 6.2, and RFC 9204, 4.2).
const (
	streamControl = 0x0
	streamPush    = 0x1
	streamEncoder = 0x2
	streamDecoder = 0x3
)

// Identifiers of settings (RFC 9114, 7.2.4.1, and RFC 9220, 3).
const (
	settingMaxFieldSectionSize = 0x6
	settingExtendedConnect     = 0x8
)

// maxSettings is how long a client's SETTINGS may be, in bytes.
const maxSettings = 1 << 10

// greet opens our control stream. QPACK's streams are not opened, because
// nothing would be sent on them (RFC 9204, 4.2).
func (c *conn) greet() error {
	control, err := c.qc.OpenUniStream()
	if err != nil {
		return err
	}
	var settings []byte
	settings = appendVarint(settings, settingMaxFieldSectionSize)
	settings = appendVarint(settings, uint64(c.config.MaxHeaderBytes))
	settings = appendVarint(settings, settingExtendedConnect)
	settings = appendVarint(settings, 1)
	if _, err := control.Write(appendFrame([]byte{streamControl}, frameSettings, settings)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.control = control
	c.idle = time.AfterFunc(c.config.IdleTimeout, c.expire)
	return nil
}

// acceptOneWay serves the client's one-way streams.
func (c *conn) acceptOneWay() {
	for {
		str, err := c.qc.AcceptUniStream(c.ctx)
		if err != nil {
			return
		}
		c.tasks.Go(func() {
			// The stream is read until the connection ends.
			stop := context.AfterFunc(c.ctx, func() { str.CancelRead(codeNoError) })
			defer stop()
			var fatal *connError
			if err := c.oneWay(str); errors.As(err, &fatal) {
				c.end(fatal)
			}
		})
	}
}

// oneWay serves a one-way stream. Other errors than a connError are of no
// account.
func (c *conn) oneWay(str *quic.ReceiveStream) error {
	in := &input{r: str}
	var first [1]byte
	if err := in.full(first[:]); err != nil {
		return nil // it ended before it was anything (RFC 9114, 6.2)
	}
	kind, err := in.varint(first[0])
	switch {
	case err != nil:
		return nil
	case kind == streamPush: // RFC 9114, 6.2.2
		return &connError{codeStreamCreation, "only servers push"}
	case kind > streamDecoder:
		str.CancelRead(codeStreamCreation)
		return nil
	}
	if !c.open(kind) {
		return &connError{codeStreamCreation, "a second stream of a kind that exists once"}
	}
	switch kind {
	case streamControl:
		err = readControl(in)
	case streamEncoder:
		err = readEncoder(in)
	default:
		err = readDecoder(in)
	}
	var reset *quic.StreamError
	if err == io.EOF || errors.As(err, &reset) && reset.Remote {
		return &connError{codeClosedCritical, "a critical stream was closed"} // RFC 9114, 6.2.1
	}
	return err
}

// open notes that the client has opened a critical stream. It returns false if
// it has one of that kind.
func (c *conn) open(kind uint64) bool {
	i := kind
	if i > 0 {
		i-- // there are no push streams
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.critical[i]
	c.critical[i] = true
	return !had
}

// readControl reads the control stream. Nothing on it changes what we do.
func readControl(in *input) error {
	kind, length, err := in.header()
	switch {
	case err != nil:
		return err
	case kind != frameSettings:
		return &connError{codeMissingSettings, "the first frame is not SETTINGS"}
	case length > maxSettings:
		return &connError{codeExcessiveLoad, "the settings are too long"}
	}
	payload := make([]byte, length)
	if err := in.full(payload); err != nil {
		return within(err)
	}
	if err := checkSettings(payload); err != nil {
		return err
	}
	var maxPushID uint64
	for {
		if kind, length, err = in.header(); err != nil {
			return err
		}
		switch kind {
		case frameData, frameHeaders, frameSettings, framePushPromise, 0x2, 0x6, 0x8, 0x9:
			return &connError{codeFrameUnexpected, "a frame that does not belong on the control stream"}
		case frameCancelPush:
			return &connError{codeID, "nothing is pushed"} // RFC 9114, 7.2.3
		case frameGoAway, frameMaxPushID:
			id, err := in.id(length)
			switch {
			case err != nil:
				return err
			case kind == frameMaxPushID && id < maxPushID:
				return &connError{codeID, "MAX_PUSH_ID became less"} // RFC 9114, 7.2.7
			case kind == frameMaxPushID:
				maxPushID = id
			}
		default:
			if err := in.skip(length); err != nil {
				return err
			}
		}
	}
}

// id reads a frame's payload that is one integer.
func (in *input) id(length uint64) (uint64, error) {
	var b [8]byte
	if length == 0 || length > uint64(len(b)) {
		return 0, &connError{codeFrame, "a frame of the wrong length"}
	}
	if err := in.full(b[:length]); err != nil {
		return 0, within(err)
	}
	id, n, err := quicvarint.Parse(b[:length])
	if err != nil || uint64(n) != length {
		return 0, &connError{codeFrame, "a frame of the wrong length"}
	}
	return id, nil
}

// checkSettings checks the client's settings. None of them matters here.
func checkSettings(b []byte) error {
	seen := make(map[uint64]bool)
	for len(b) > 0 {
		id, n, err := quicvarint.Parse(b)
		if err != nil {
			return &connError{codeFrame, "the settings are cut off"}
		}
		b = b[n:]
		if _, n, err = quicvarint.Parse(b); err != nil {
			return &connError{codeFrame, "the settings are cut off"}
		}
		b = b[n:]
		if seen[id] || id == 0 || 2 <= id && id <= 5 {
			return &connError{codeSettings, "a setting twice, or one of HTTP/2"} // RFC 9114, 7.2.4
		}
		seen[id] = true
	}
	return nil
}

// readEncoder reads QPACK's encoder stream. All that makes sense without a
// table is to set its capacity to zero (RFC 9204, 4.3.1).
func readEncoder(in *input) error {
	const setCapacityZero = 0x20
	var b [16]byte
	for {
		n, err := in.read(b[:])
		for _, instruction := range b[:n] {
			if instruction != setCapacityZero {
				return &connError{codeQPACKEncoder, "there is no dynamic table"}
			}
		}
		if err != nil {
			return err
		}
	}
}

// readDecoder reads QPACK's decoder stream. All that makes sense without a
// table is to cancel a stream (RFC 9204, 4.4.2).
func readDecoder(in *input) error {
	var b [16]byte
	number := false // within one that began with 01111111
	for {
		n, err := in.read(b[:])
		for _, x := range b[:n] {
			switch {
			case number:
				number = x&0x80 != 0
			case x&0xc0 == 0x40:
				number = x&0x3f == 0x3f
			default:
				return &connError{codeQPACKDecoder, "there is no dynamic table"}
			}
		}
		if err != nil {
			return err
		}
	}
}
