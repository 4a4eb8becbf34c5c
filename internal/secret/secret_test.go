package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestKeyShowsItselfToEncodersOnly(t *testing.T) {
	k := Key{1, 2, 3, 31: 255}
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "key", k, "pointer", &k)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		fmt.Fprintf(&log, verb+"\n", k, k)
		fmt.Fprintf(&log, strings.ReplaceAll(verb, "%T ", "")+"\n", []any{&k, struct{ K Key }{k}})
	}
	for _, leak := range []string{string(text[1:9]), "1 2 3", "010203", "0x1"} {
		if strings.Contains(log.String(), leak) {
			t.Errorf("%q in\n%s", leak, log.String())
		}
	}
	var back Key
	if err := json.Unmarshal(text, &back); err != nil || back != k {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{`""`, `"AQID"`, strings.Replace(string(text), "A", "!", 1), `"` + strings.Repeat("A", 88) + `"`} {
		before := back
		if err := json.Unmarshal([]byte(bad), &back); err == nil || back != before || len(bad) > 4 && strings.Contains(err.Error(), bad[1:5]) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
