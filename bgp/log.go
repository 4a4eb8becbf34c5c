package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	gobgplog "github.com/osrg/gobgp/v3/pkg/log"
)

// engineLogger writes GoBGP's messages to slog. GoBGP warns about ordinary
// session events, which Speaker and Router report themselves, so all but errors
// go to the debug level.
type engineLogger struct{ log *slog.Logger }

var _ gobgplog.Logger = engineLogger{}

func (l engineLogger) Debug(msg string, fields gobgplog.Fields) {
	l.write(slog.LevelDebug, msg, fields)
}
func (l engineLogger) Info(msg string, fields gobgplog.Fields) { l.write(slog.LevelDebug, msg, fields) }
func (l engineLogger) Warn(msg string, fields gobgplog.Fields) { l.write(slog.LevelDebug, msg, fields) }
func (l engineLogger) Error(msg string, fields gobgplog.Fields) {
	l.write(slog.LevelError, msg, fields)
}

// Panic and Fatal mark states that GoBGP cannot go on from. Ending the process
// closes its sessions, and the neighbors withdraw what it announced.
func (l engineLogger) Panic(msg string, fields gobgplog.Fields) { l.crash(msg, fields) }
func (l engineLogger) Fatal(msg string, fields gobgplog.Fields) { l.crash(msg, fields) }

func (l engineLogger) crash(msg string, fields gobgplog.Fields) {
	l.write(slog.LevelError, msg, fields)
	panic("gobgp: " + msg)
}

// GetLevel spares GoBGP the making of debug messages nobody reads.
func (l engineLogger) GetLevel() gobgplog.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return gobgplog.DebugLevel
	}
	return gobgplog.ErrorLevel
}

// SetLevel does nothing: the handler of the slog.Logger decides.
func (l engineLogger) SetLevel(gobgplog.LogLevel) {}

func (l engineLogger) write(level slog.Level, msg string, fields gobgplog.Fields) {
	ctx := context.Background()
	if !l.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("library", "gobgp")}
	for key, value := range fields {
		key = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(key))
		attrs = append(attrs, slog.String(key, fmt.Sprint(value)))
	}
	l.log.LogAttrs(ctx, level, msg, attrs...)
}
