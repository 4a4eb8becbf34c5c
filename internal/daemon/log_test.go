package daemon

import (
	"strings"
	"testing"
)

func TestNewLogger(t *testing.T) {
	for _, tt := range []struct{ level, format, want, err string }{
		{"debug", "text", "level=DEBUG msg=a node=x\nlevel=WARN msg=b", ""},
		{"info", "text", "level=WARN msg=b", ""},
		{"warn", "json", `"level":"WARN","msg":"b"}`, ""},
		{"error", "text", "", ""},
		{"loud", "text", "", `log level "loud" is none of debug, info, warn, error`},
		{"info", "xml", "", `log format "xml" is neither text nor json`},
	} {
		var out strings.Builder
		log, err := NewLogger(&out, tt.level, tt.format)
		if err != nil {
			if err.Error() != tt.err {
				t.Errorf("%s %s: %v", tt.level, tt.format, err)
			}
			continue
		}
		log.Debug("a", "node", "x")
		log.Warn("b")
		var lines []string
		for line := range strings.Lines(out.String()) {
			_, rest, _ := strings.Cut(strings.TrimSpace(line), " ") // text: past the time
			if tt.format == "json" {
				_, rest, _ = strings.Cut(strings.TrimSpace(line), ",")
			}
			lines = append(lines, rest)
		}
		if got := strings.Join(lines, "\n"); got != tt.want || tt.err != "" {
			t.Errorf("%s %s: %q, want %q", tt.level, tt.format, got, tt.want)
		}
	}
}
