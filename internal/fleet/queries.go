package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxQueries is the most that [Queries].Data may hold, in bytes.
const MaxQueries = 64 << 10

// Queries are how much a DNS node was asked by which client networks, in an encoding
// that only those who write and read it know. Like [RTT] it is sealed in the store.
type Queries struct {
	Node string    `json:"node"` // the DNS node
	At   time.Time `json:"at"`   // when it was made, by the node's clock
	Data []byte    `json:"data"` // at most MaxQueries bytes; not to be changed
}

func (q *Queries) validate() error {
	errs := []error{checkName("node", q.Node)}
	if len(q.Data) > MaxQueries {
		errs = append(errs, fmt.Errorf("data: %d bytes, more than %d", len(q.Data), MaxQueries))
	}
	return errors.Join(errs...)
}

// PublishQueries writes what a DNS node was asked, as [Fleet.PublishRTT] writes
// round-trip times.
func (f *Fleet) PublishQueries(ctx context.Context, s Session, q Queries) error {
	if err := q.validate(); err != nil {
		return fmt.Errorf("queries: %w", err)
	}
	value, err := encode(q)
	if err != nil {
		return fmt.Errorf("queries: %w", err)
	}
	return f.replaceSealed(ctx, prefixQueries+q.Node, value, s)
}

func (f *Fleet) decodeQueries(node string, value []byte) (Queries, error) {
	value, err := f.open(prefixQueries+node, value)
	if err != nil {
		return Queries{}, err
	}
	var q Queries
	if err := json.Unmarshal(value, &q); err != nil {
		return Queries{}, err
	}
	if q.Node != node {
		return Queries{}, fmt.Errorf("%.80q under the key of %q", q.Node, node)
	}
	return q, q.validate()
}

// queriesPart fills in what comes from prefixQueries.
func queriesPart(v *View, list []kept) {
	v.Queries = make([]Queries, 0, len(list))
	for _, item := range list {
		if q, ok := item.good.(Queries); ok {
			v.Queries = append(v.Queries, q)
		}
	}
}
