package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxRTT is the most that [RTT].Data may hold, in bytes. A DNS node reads those of
// all nodes every time, so they must stay small.
const MaxRTT = 64 << 10

// RTT is what a node has measured of the round-trip times to its clients, in an
// encoding that only those who write and read it know. It tells where clients
// are, so it is sealed in the store.
type RTT struct {
	Node string    `json:"node"`
	Pop  string    `json:"pop"`
	At   time.Time `json:"at"`   // when it was made, by the node's clock
	Data []byte    `json:"data"` // at most MaxRTT bytes; not to be changed
}

func (r *RTT) validate() error {
	errs := []error{checkName("node", r.Node), checkName("pop", r.Pop)}
	if len(r.Data) > MaxRTT {
		errs = append(errs, fmt.Errorf("data: %d bytes, more than %d", len(r.Data), MaxRTT))
	}
	return errors.Join(errs...)
}

// PublishRTT writes a node's round-trip times in place of those before, bound to a
// session: they outlast the node by the time that the session has left. That is
// not the session of the node's report, for they are good for longer than that.
// One of an earlier process of the node that still holds them is ended. The error
// is [ErrSession] if s has ended.
func (f *Fleet) PublishRTT(ctx context.Context, s Session, r RTT) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("rtt: %w", err)
	}
	value, err := encode(r)
	if err != nil {
		return fmt.Errorf("rtt: %w", err)
	}
	return f.replaceSealed(ctx, prefixRTT+r.Node, value, s)
}

// replaceSealed seals a value and binds it to a session, in place of what another
// one holds.
func (f *Fleet) replaceSealed(ctx context.Context, key string, value []byte, s Session) error {
	if f.sealer != nil {
		value = f.sealer.Seal(key, value) // once: binding the same bytes twice is one write
	}
	err := f.bind(ctx, key, value, s)
	if errors.Is(err, ErrConflict) {
		if err = f.endHolder(ctx, key); err == nil {
			err = f.bind(ctx, key, value, s)
		}
	}
	return err
}

// RTT reads what a node published last. The error is [ErrNotFound] if there is
// nothing.
func (f *Fleet) RTT(ctx context.Context, node string) (RTT, error) {
	if err := checkName("node", node); err != nil {
		return RTT{}, err
	}
	e, err := f.store.Get(ctx, prefixRTT+node)
	if err != nil {
		return RTT{}, err
	}
	r, err := f.decodeRTT(node, e.Value)
	if err != nil {
		return RTT{}, fmt.Errorf("rtt of %s: %w", node, err)
	}
	return r, nil
}

func (f *Fleet) decodeRTT(node string, value []byte) (RTT, error) {
	value, err := f.open(prefixRTT+node, value)
	if err != nil {
		return RTT{}, err
	}
	var r RTT
	if err := json.Unmarshal(value, &r); err != nil {
		return RTT{}, err
	}
	if r.Node != node {
		return RTT{}, fmt.Errorf("%.80q under the key of %q", r.Node, node)
	}
	return r, r.validate()
}

// rttPart fills in what comes from prefixRTT.
func rttPart(v *View, list []kept) {
	v.RTT = make([]RTT, 0, len(list))
	for _, item := range list {
		if r, ok := item.good.(RTT); ok {
			v.RTT = append(v.RTT, r)
		}
	}
}
