package pop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"anyedge/internal/fleet"
)

const (
	standingFile    = "standing.json"
	standingVersion = 1
	// standingMax bounds what is read of the file.
	standingMax = 1 << 20
	// standingRetry is the pause before a write that failed is tried again.
	standingRetry = time.Second
)

// standing is what an agent has to know that was started in the middle of
// something: the orders that were in force for its node, and how far a drain had
// come. The fleet store knows the orders too, but may be out of reach, and a node
// that is being drained must not announce itself meanwhile.
type standing struct {
	Version int          `json:"version"`
	Node    string       `json:"node"`
	Stage   DrainStage   `json:"stage"`
	Since   time.Time    `json:"since"` // of Stage
	Orders  fleet.Orders `json:"orders"`
}

// at returns what of s counts for an agent that starts at now.
func (s standing) at(now time.Time) standing {
	s.Orders = s.Orders.At(now)
	if s.Orders.Drain == nil {
		s.Stage, s.Since = DrainNone, time.Time{}
	}
	if s.Since.After(now) { // the clock was set back
		s.Since = now
	}
	return s
}

func (s standing) validate(node string) error {
	switch {
	case s.Version != standingVersion:
		return fmt.Errorf("version %d, this binary knows %d", s.Version, standingVersion)
	case s.Node != node:
		return fmt.Errorf("written by node %.80q, this is %q", s.Node, node)
	}
	for _, known := range DrainStages() {
		if s.Stage == known {
			return s.Orders.Validate()
		}
	}
	return fmt.Errorf("stage %.80q is not known", s.Stage)
}

// stateFile keeps the newest standing on disk. A disk may hang, so the writing
// has a goroutine of its own: the controller never waits for it. A nil stateFile
// keeps nothing.
type stateFile struct {
	dir     string
	log     *slog.Logger
	metrics *metrics
	pending chan standing // capacity 1: the newest that is not written yet
	last    standing      // given to keep; owned by its caller
}

// openStateFile makes dir if need be and returns the file in it, with what an
// earlier process left there. What cannot be read counts as nothing, and is
// logged: the fleet store has the orders too. The error is that dir cannot be
// used. Without a dir there is no file.
func openStateFile(dir, node string, log *slog.Logger, m *metrics) (*stateFile, standing, error) {
	nothing := standing{Version: standingVersion, Node: node, Stage: DrainNone}
	if dir == "" {
		return nil, nothing, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nothing, fmt.Errorf("state directory: %w", err)
	}
	f := &stateFile{dir: dir, log: log, metrics: m, pending: make(chan standing, 1), last: nothing}
	s, err := f.read(node)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nothing, nil
	case err != nil:
		log.Error("state file of an earlier process passed over", "file", filepath.Join(dir, standingFile), "error", err)
		return f, nothing, nil
	}
	return f, s, nil
}

func (f *stateFile) read(node string) (standing, error) {
	path := filepath.Join(f.dir, standingFile)
	info, err := os.Stat(path)
	if err != nil {
		return standing{}, err
	}
	if info.Size() > standingMax {
		return standing{}, fmt.Errorf("%d bytes, more than %d", info.Size(), standingMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return standing{}, err
	}
	var s standing
	if err := json.Unmarshal(data, &s); err != nil {
		return standing{}, err
	}
	return s, s.validate(node)
}

// keep has s written soon, if it differs from the one before. It never blocks,
// and one goroutine at a time may call it. A crash in the moment before the
// writing leaves the stage before on disk, from which a drain goes on as well.
func (f *stateFile) keep(s standing) {
	if f == nil || reflect.DeepEqual(s, f.last) {
		return
	}
	f.last = s
	select {
	case <-f.pending: // one that was not written yet is out of date
	default:
	}
	f.pending <- s
}

// run writes what keep was given until ctx ends, and then the last of it.
func (f *stateFile) run(ctx context.Context) error {
	failed := false
	write := func(s standing) bool {
		err := f.write(s)
		if err != nil {
			f.metrics.stateErrors.Inc()
		}
		if err != nil && !failed {
			f.log.Error("state file not written, retrying: a restart now would know the drain from the fleet store only", "error", err)
		}
		failed = err != nil
		return !failed
	}
	for {
		select {
		case s := <-f.pending:
			for !write(s) {
				select {
				case s = <-f.pending:
				case <-time.After(standingRetry):
				case <-ctx.Done():
					write(s)
					return nil
				}
			}
		case <-ctx.Done():
			select {
			case s := <-f.pending:
				write(s)
			default:
			}
			return nil
		}
	}
}

// write replaces the file as a whole. CreateTemp makes it readable by its owner
// only.
func (f *stateFile) write(s standing) (err error) {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.dir, standingFile+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(append(data, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), filepath.Join(f.dir, standingFile)); err != nil {
		return err
	}
	dir, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// resume goes on where an earlier process of this node was.
func (a *Agent) resume(now time.Time, s standing) {
	if s.Stage != DrainNone {
		a.log.Info("drain goes on where it was", "stage", s.Stage, "since", s.Since)
		a.controller.route.drain = drain{stage: s.Stage, since: s.Since}
		a.closing.Store(a.controller.route.drain.closing())
	}
	a.member.restored = s.Orders
}

// restore puts the orders of an earlier process into a store that lives and dies
// with this one: there is no other place that would still know them.
func (a *Agent) restore(ctx context.Context) {
	o := a.member.restored
	if _, private := a.member.store.(*fleet.Memory); !private || o.None() {
		return
	}
	var errs []error
	if o.Drain != nil {
		errs = append(errs, a.fleet.SetDrain(ctx, *o.Drain))
	}
	for _, d := range o.Prefixes {
		errs = append(errs, a.fleet.SetDrain(ctx, d))
	}
	if o.Override != nil {
		errs = append(errs, a.fleet.SetOverride(ctx, *o.Override))
	}
	for _, p := range o.PrefixOverrides {
		errs = append(errs, a.fleet.SetOverride(ctx, p))
	}
	if err := errors.Join(errs...); err != nil {
		a.log.Error("orders of an earlier process not restored", "error", err)
	}
}
