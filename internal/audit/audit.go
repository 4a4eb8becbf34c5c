// Package audit keeps a record of what operators did to a node: who, when, what,
// and how it ended. It goes to the process's log, to memory for whoever asks, and,
// given a directory, to a file that is only ever appended to.
//
// # The file
//
// One JSON object a line, in the order of the acts, readable by its owner only. An
// entry is on disk before Record returns. When the file has reached its bound it
// is renamed to audit.log.1, the one before to audit.log.2, and so on; the oldest
// goes. A line that a crash cut off is left where it is and passed over by
// readers here.
//
// # Concurrency
//
// A [Log] is safe for concurrent use. It has no goroutine and holds no file open.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Name is the file's name in its directory.
const Name = "audit.log"

const (
	defaultMaxBytes = 1 << 20
	defaultKeep     = 4
	// kept is how many entries stay in memory, for queries. Older ones are in the file.
	kept = 256
	// maxText bounds each text of an entry, in bytes.
	maxText = 1024
)

// Act is a kind of what operators do. It is a closed set.
type Act string

// The acts.
const (
	Drain         Act = "drain"
	Undrain       Act = "undrain"
	Override      Act = "override"
	ClearOverride Act = "clear_override"
	// Of what steers clients:
	SteerOverride      Act = "steer_override"
	ClearSteerOverride Act = "clear_steer_override"
	DNSSECKeys         Act = "dnssec_keys" // of a zone
	Reload             Act = "reload"      // of the config
	Rollout            Act = "rollout"
	// Of the sessions with upstream routers:
	Blackhole      Act = "blackhole"
	ClearBlackhole Act = "clear_blackhole"
	Shutdown       Act = "shutdown_neighbor"
	Enable         Act = "enable_neighbor"
)

// Acts returns every kind of act.
func Acts() []Act {
	return []Act{
		Drain, Undrain, Override, ClearOverride, SteerOverride, ClearSteerOverride, DNSSECKeys, Reload, Rollout,
		Blackhole, ClearBlackhole, Shutdown, Enable,
	}
}

// Entry is one act.
type Entry struct {
	At   time.Time `json:"at"`
	Act  Act       `json:"act"`
	By   string    `json:"by,omitempty"`   // who it was, by their own account
	From string    `json:"from,omitempty"` // where it came from: an address, or "signal"
	On   string    `json:"on,omitempty"`   // what it was done to, such as "pop fra"
	// What says more about the act, such as the reason that was given.
	What string `json:"what,omitempty"`
	// Until is when the act ends by itself; zero if it does not.
	Until time.Time `json:"until,omitzero"`
	// Forced is true for an act that put a safeguard out of force.
	Forced bool `json:"forced,omitempty"`
	// Error is why the act failed; empty if it did not.
	Error string `json:"error,omitempty"`
}

// Actor is who an operator's act comes from.
type Actor struct {
	By   string // by their own account
	From string // an address, or "signal"
}

// Config makes a [Log].
type Config struct {
	// Dir is where the file is; it is made if need be. Empty: there is none.
	Dir string
	// MaxBytes bounds the file. Default 1 MiB.
	MaxBytes int64
	// Keep is how many full files stay beside it. Default 4.
	Keep int
	// Log gets a line for every act. Required.
	Log *slog.Logger
}

// Log is a record of operators' acts.
type Log struct {
	dir      string
	maxBytes int64
	keep     int
	log      *slog.Logger

	mu      sync.Mutex // held while writing, so that entries keep their order
	entries []Entry    // the newest, in order
}

// Open returns the log, with the newest entries of an earlier process. The error
// is that the file cannot be read, or that there can be none.
func Open(cfg Config) (*Log, error) {
	l := &Log{dir: cfg.Dir, maxBytes: cfg.MaxBytes, keep: cfg.Keep, log: cfg.Log}
	if l.maxBytes == 0 {
		l.maxBytes = defaultMaxBytes
	}
	if l.keep == 0 {
		l.keep = defaultKeep
	}
	if l.dir == "" {
		return l, nil
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	for _, path := range []string{l.path(1), l.path(0)} {
		if err := l.load(path); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
	}
	return l, nil
}

// path is that of the file in use, 0, or of the nth full one.
func (l *Log) path(n int) string {
	name := Name
	if n > 0 {
		name += "." + strconv.Itoa(n)
	}
	return filepath.Join(l.dir, name)
}

func (l *Log) load(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		var e Entry
		if json.Unmarshal(line, &e) == nil && e.Act != "" {
			l.remember(e)
		}
	}
	return nil
}

func (l *Log) remember(e Entry) {
	l.entries = append(l.entries, e)
	l.entries = l.entries[max(0, len(l.entries)-kept):]
}

// Done records an act of somebody's that has just been done, or has failed with
// err, and returns err. The entry says all but when, by whom, from where, and how
// it ended.
func (l *Log) Done(who Actor, e Entry, err error) error {
	e.At, e.By, e.From = time.Now(), who.By, who.From
	if err != nil {
		e.Error = err.Error()
	}
	l.Record(e)
	return err
}

// Record records an act after it was done, or has failed. A file that cannot be
// written to is the log's to tell: the act has happened.
func (l *Log) Record(e Entry) {
	for _, text := range []*string{&e.By, &e.From, &e.On, &e.What, &e.Error} {
		if len(*text) > maxText {
			*text = string(bytes.ToValidUTF8([]byte((*text)[:maxText]), nil))
		}
	}
	attrs := []any{"act", e.Act, "by", e.By, "from", e.From, "on", e.On, "what", e.What}
	if !e.Until.IsZero() {
		attrs = append(attrs, "until", e.Until)
	}
	switch {
	case e.Error != "":
		l.log.Warn("operator's act failed", append(attrs, "forced", e.Forced, "error", e.Error)...)
	case e.Forced:
		l.log.Warn("operator's act WITH FORCE: a safeguard is out of force", attrs...)
	default:
		l.log.Info("operator's act", attrs...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(e)
	if l.dir == "" {
		return
	}
	if err := l.append(e); err != nil {
		l.log.Error("audit log not written, the entry is in this log only", "error", err)
	}
}

// append writes an entry to the file, and first makes room if it is full.
func (l *Log) append(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	f, err := os.OpenFile(l.path(0), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size > 0 && size+int64(len(line)) > l.maxBytes {
		if err := l.rotate(); err != nil {
			return err
		}
		f.Close()
		if f, err = os.OpenFile(l.path(0), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
			return err
		}
		size = 0
	}
	if size > 0 { // a crash may have cut the last line off
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = slices.Insert(line, 0, '\n')
		}
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Sync())
}

// rotate makes room for a new file.
func (l *Log) rotate() error {
	for n := l.keep - 1; n >= 0; n-- {
		if err := os.Rename(l.path(n), l.path(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Query picks entries. The zero values of its fields are for all, but for that of
// Last.
type Query struct {
	Last  int       // at most so many, the newest
	Since time.Time // none older
	By    string    // of this actor
	Act   Act       // of this kind
}

// Entries returns the entries in memory that a query asks for, the oldest first.
func (l *Log) Entries(q Query) []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := []Entry{}
	for _, e := range slices.Backward(l.entries) {
		if len(entries) >= q.Last {
			break
		}
		if !e.At.Before(q.Since) && (q.By == "" || q.By == e.By) && (q.Act == "" || q.Act == e.Act) {
			entries = append(entries, e)
		}
	}
	slices.Reverse(entries)
	return entries
}
