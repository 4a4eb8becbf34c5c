package soak

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// watcher is the worker's log. Errors are wrong; of the rest the last lines are
// kept, to tell why a connection ended.
type watcher struct {
	soak *soak
	mu   sync.Mutex
	last [2048]string // a ring
	next int
}

// Enabled implements [slog.Handler].
func (w *watcher) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements [slog.Handler].
func (w *watcher) WithAttrs([]slog.Attr) slog.Handler { return w }

// WithGroup implements [slog.Handler].
func (w *watcher) WithGroup(string) slog.Handler { return w }

// Handle implements [slog.Handler].
func (w *watcher) Handle(ctx context.Context, r slog.Record) error {
	var line bytes.Buffer
	slog.NewTextHandler(&line, &slog.HandlerOptions{Level: slog.LevelDebug}).Handle(ctx, r)
	text := strings.TrimSpace(line.String())
	if r.Level >= slog.LevelError {
		w.soak.wrong("log", "the worker logged: "+text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[w.next%len(w.last)] = text
	w.next++
	return nil
}

// about returns what the worker said of a client lately.
func (w *watcher) about(client string) string {
	time.Sleep(20 * time.Millisecond) // it may not have said it yet
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for _, line := range w.last {
		if strings.Contains(line, client) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
