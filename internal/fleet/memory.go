package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a [Store] inside this process. It lives and ends with it: "durable"
// means no more than that. A session may have any ttl above zero, and ends
// exactly when that has passed without a renewal.
//
// Make one with [NewMemory].
type Memory struct {
	mu       sync.Mutex
	index    uint64 // of the last change of any key
	entries  map[string]Entry
	sessions map[Session]*memorySession
	watchers map[*memoryWatcher]struct{}
	recent   [memoryRecent]string // the key of change i is at i % memoryRecent
}

// memoryRecent is how many changes back Watch can tell whether one was under
// its prefix. Further back it returns at once.
const memoryRecent = 1024

type memorySession struct {
	ttl   time.Duration
	timer *time.Timer
	ends  time.Time // a timer that fires before this has been overtaken by a renewal
}

type memoryWatcher struct {
	prefix  string
	changed chan struct{} // closed at the first change under prefix
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		index:    1, // 0 means "at once" to Watch
		entries:  make(map[string]Entry),
		sessions: make(map[Session]*memorySession),
		watchers: make(map[*memoryWatcher]struct{}),
	}
}

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, key string) (Entry, error) {
	if err := ctx.Err(); err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return e, nil
}

// List implements [Store]. The index is that of the whole store, which is
// always high enough for Watch.
func (m *Memory) List(ctx context.Context, prefix string) ([]Entry, uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, index := m.listLocked(prefix)
	return entries, index, nil
}

func (m *Memory) listLocked(prefix string) ([]Entry, uint64) {
	var list []Entry
	for key, e := range m.entries {
		if strings.HasPrefix(key, prefix) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	return list, m.index
}

// Watch implements [Store].
func (m *Memory) Watch(ctx context.Context, prefix string, after uint64) ([]Entry, uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	m.mu.Lock()
	if m.changedLocked(prefix, after) {
		defer m.mu.Unlock()
		entries, index := m.listLocked(prefix)
		return entries, index, nil
	}
	w := &memoryWatcher{prefix: prefix, changed: make(chan struct{})}
	m.watchers[w] = struct{}{}
	m.mu.Unlock()

	wait := time.NewTimer(watchWait)
	defer wait.Stop()
	var err error
	select {
	case <-w.changed:
	case <-wait.C:
	case <-ctx.Done():
		err = ctx.Err()
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watchers, w)
	if err != nil {
		return nil, 0, err
	}
	entries, index := m.listLocked(prefix)
	return entries, index, nil
}

// changedLocked reports whether a key under prefix has changed after index
// after, or may have. An index from the future is that of a store before this
// one.
func (m *Memory) changedLocked(prefix string, after uint64) bool {
	if after == 0 || after > m.index || m.index-after > memoryRecent {
		return true
	}
	for i := after + 1; i <= m.index; i++ {
		if strings.HasPrefix(m.recent[i%memoryRecent], prefix) {
			return true
		}
	}
	return false
}

// CompareAndSwap implements [Store].
func (m *Memory) CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (uint64, error) {
	if err := errors.Join(ctx.Err(), checkWrite(key, value)); err != nil {
		return 0, err
	}
	if value == nil && prev == 0 {
		return 0, fmt.Errorf("delete %s: an index is required", key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, exists := m.entries[key]
	switch {
	case value == nil && !exists:
		return 0, nil
	case e.Index != prev:
		return 0, fmt.Errorf("write %s: %w", key, ErrConflict)
	case value == nil:
		m.deleteLocked(key)
		return m.index, nil
	}
	return m.putLocked(key, value, e.Session), nil
}

// Bind implements [Store].
func (m *Memory) Bind(ctx context.Context, key string, value []byte, s Session) error {
	if err := errors.Join(ctx.Err(), checkWrite(key, value)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[s] == nil {
		return fmt.Errorf("bind %s: %w", key, ErrSession)
	}
	if e := m.entries[key]; e.Session != "" && e.Session != s {
		return fmt.Errorf("bind %s: %w", key, ErrConflict)
	}
	m.putLocked(key, value, s)
	return nil
}

// BindAndSwap implements [Store].
func (m *Memory) BindAndSwap(ctx context.Context, b Binding, key string, value []byte, prev uint64) error {
	if err := errors.Join(ctx.Err(), checkPair(b, key, value)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sessions[b.Session] == nil {
		return fmt.Errorf("bind %s: %w", b.Key, ErrSession)
	}
	if e := m.entries[b.Key]; e.Session != "" && e.Session != b.Session {
		return fmt.Errorf("bind %s: %w", b.Key, ErrConflict)
	}
	e := m.entries[key]
	if e.Index != prev {
		return fmt.Errorf("write %s: %w", key, ErrConflict)
	}
	m.putLocked(b.Key, b.Value, b.Session)
	m.putLocked(key, value, e.Session)
	return nil
}

func (m *Memory) putLocked(key string, value []byte, s Session) uint64 {
	if e, ok := m.entries[key]; ok && e.Session == s && bytes.Equal(e.Value, value) {
		return e.Index
	}
	m.advanceLocked(key)
	m.entries[key] = Entry{Key: key, Value: append([]byte{}, value...), Index: m.index, Session: s}
	return m.index
}

func (m *Memory) deleteLocked(key string) {
	m.advanceLocked(key)
	delete(m.entries, key)
}

// advanceLocked counts a change of key and wakes who waits for it. They read
// when the caller lets go of the lock.
func (m *Memory) advanceLocked(key string) {
	m.index++
	m.recent[m.index%memoryRecent] = key
	for w := range m.watchers {
		if strings.HasPrefix(key, w.prefix) {
			close(w.changed)
			delete(m.watchers, w)
		}
	}
}

// NewSession implements [Store].
func (m *Memory) NewSession(ctx context.Context, name string, ttl time.Duration) (Session, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if ttl <= 0 {
		return "", fmt.Errorf("session %s: ttl %v is not above zero", name, ttl)
	}
	s := Session(rand.Text())
	m.mu.Lock()
	defer m.mu.Unlock()
	session := &memorySession{ttl: ttl, ends: time.Now().Add(ttl)}
	session.timer = time.AfterFunc(ttl, func() { m.expire(s) }) // after ends was taken, so not before it
	m.sessions[s] = session
	return s, nil
}

// RenewSession implements [Store].
func (m *Memory) RenewSession(ctx context.Context, s Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	session := m.sessions[s]
	if session == nil {
		return fmt.Errorf("renew: %w", ErrSession)
	}
	session.ends = time.Now().Add(session.ttl)
	session.timer.Reset(session.ttl)
	return nil
}

// EndSession implements [Store].
func (m *Memory) EndSession(ctx context.Context, s Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(s)
	return nil
}

// expire runs on the session's timer.
func (m *Memory) expire(s Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if session := m.sessions[s]; session != nil && !time.Now().Before(session.ends) {
		m.endLocked(s)
	}
}

func (m *Memory) endLocked(s Session) {
	session := m.sessions[s]
	if session == nil {
		return
	}
	session.timer.Stop()
	delete(m.sessions, s)
	for key, e := range m.entries {
		if e.Session == s {
			m.deleteLocked(key)
		}
	}
}
