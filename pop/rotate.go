package pop

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"anyedge/configs"
	"anyedge/internal/fleet"
	"anyedge/internal/tickets"
)

// rotator advances the fleet's ring of session ticket keys. Every agent runs
// one: whoever's compare-and-swap comes first has rotated, and the others take
// what it wrote. While the store is out of reach the ring stays as it is and
// goes on serving.
type rotator struct {
	fleet    *fleet.Fleet
	schedule tickets.Schedule
	log      *slog.Logger
}

func newRotator(f *fleet.Fleet, t configs.Tickets, log *slog.Logger) *rotator {
	return &rotator{
		fleet:    f,
		schedule: tickets.Schedule{Rotate: t.Rotate.Std(), Keep: t.Keep, Propagation: t.Propagation.Std()},
		log:      log,
	}
}

func (r *rotator) String() string { return "ticket rotator" }

// rotatePause is the pace at which a rotator looks; jitter keeps the agents
// from all trying at one instant.
const rotatePause = time.Second

// Run rotates until ctx ends. It looks at once: a fleet's first node makes the
// ring before it has clients.
func (r *rotator) Run(ctx context.Context) error {
	for {
		if err := r.rotate(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.log.Warn("ticket ring not rotated, retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rotatePause/2 + rand.N(rotatePause)):
		}
	}
}

// rotate writes the next ring if one is due.
func (r *rotator) rotate(ctx context.Context, now time.Time) error {
	view := r.fleet.View()
	if !view.Connected {
		return nil
	}
	var next tickets.Ring
	ring, err := decodeRing(view.Ring)
	switch {
	case err != nil:
		return err
	case len(ring.Keys) == 0:
		next, err = tickets.New(now, r.schedule, crand.Reader)
	default:
		var changed bool
		if next, changed, err = ring.Advance(now, r.schedule, crand.Reader); !changed && err == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err = r.fleet.PutRing(ctx, data, view.RingIndex)
	if errors.Is(err, fleet.ErrConflict) {
		return nil // another agent was first
	}
	if err == nil {
		r.log.Info("ticket ring rotated", "keys", len(next.Keys))
	}
	return err
}

// decodeRing returns the ring in a view; no ring is an empty one.
func decodeRing(data []byte) (tickets.Ring, error) {
	var ring tickets.Ring
	if len(data) == 0 {
		return ring, nil
	}
	if json.Unmarshal(data, &ring) != nil { // whose error could quote a secret
		return tickets.Ring{}, errors.New("ticket ring is not what a ring looks like")
	}
	return ring, ring.Validate()
}

// validRing says what is wrong with a ring, without repeating its secrets.
func validRing(data []byte) error {
	_, err := decodeRing(data)
	return err
}
