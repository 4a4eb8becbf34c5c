package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, dir string, max int64) (*Log, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	l, err := Open(Config{Dir: dir, MaxBytes: max, Keep: 2, Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

func act(n int) Entry {
	return Entry{At: time.Unix(int64(n), 0).UTC(), Act: Drain, By: "ada", From: "127.0.0.1:5", On: fmt.Sprintf("pop p%d", n), What: "disk"}
}

func TestEntriesOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir, 0)
	l.Record(act(1))
	l.Record(act(2))
	info, err := os.Stat(filepath.Join(dir, Name))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info, err)
	}
	// A crash cuts a line off; the next entry begins a line of its own.
	f, err := os.OpenFile(filepath.Join(dir, Name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"at":"2026`)
	f.Close()
	l, _ = open(t, dir, 0)
	l.Record(act(3))
	l, _ = open(t, dir, 0)
	if got, want := l.Entries(Query{Last: 10}), []Entry{act(1), act(2), act(3)}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := l.Entries(Query{Last: 1}); len(got) != 1 || got[0].On != "pop p3" {
		t.Errorf("the newest is %+v", got)
	}
}

func TestFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir, 1000)
	for n := range 100 {
		l.Record(act(n))
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v, want audit.log and two full ones", files, err)
	}
	for _, f := range files {
		if info, _ := f.Info(); info.Size() > 1000 || info.Size() < 500 && f.Name() != Name {
			t.Errorf("%s has %d bytes", f.Name(), info.Size())
		}
	}
	l, _ = open(t, dir, 1000)
	got := l.Entries(Query{Last: 1000})
	if len(got) < 8 || got[len(got)-1].On != "pop p99" || got[0].On == got[1].On {
		t.Errorf("%d entries, the last %+v", len(got), got[len(got)-1])
	}
	for range 2 * kept {
		l.Record(Entry{Act: Undrain})
	}
	if n := len(l.Entries(Query{Last: 1 << 20})); n != kept {
		t.Errorf("%d entries in memory, want %d", n, kept)
	}
}

// Whoever reads the log sees at a glance what was forced, and what failed.
func TestForceIsLoud(t *testing.T) {
	l, out := open(t, "", 0)
	forced := act(1)
	forced.Forced = true
	failed := act(2)
	failed.Error = "no store"
	l.Record(act(0))
	l.Record(forced)
	l.Record(failed)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "INFO") ||
		!strings.Contains(lines[1], "WARN") || !strings.Contains(lines[1], "WITH FORCE") ||
		!strings.Contains(lines[2], "WARN") || !strings.Contains(lines[2], "no store") {
		t.Errorf("%s", out)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	l, _ := open(t, t.TempDir(), 0)
	l.Record(Entry{Act: Reload, Error: strings.Repeat("é", maxText)})
	l.Record(Entry{Act: Reload, What: "x" + strings.Repeat("é", maxText)})
	for _, e := range l.Entries(Query{Last: 2}) {
		if n := len(e.Error) + len(e.What); n > maxText || n < maxText-1 {
			t.Errorf("%d bytes", n)
		}
	}
}

func TestAFileThatCannotBeWrittenLosesNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	l, out := open(t, dir, 0)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	l.Record(act(1))
	if len(l.Entries(Query{Last: 9})) != 1 || !strings.Contains(out.String(), "audit log not written") {
		t.Errorf("%v, %s", l.Entries(Query{Last: 9}), out)
	}
	if err := os.MkdirAll(filepath.Join(dir, Name), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a directory was read as the log")
	}
}

func TestActsAtOnceKeepTheirLines(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() { l.Record(act(n)) })
	}
	wg.Wait()
	again, _ := open(t, dir, 0)
	if got, want := again.Entries(Query{Last: 99}), l.Entries(Query{Last: 99}); len(got) != 40 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d entries on disk, %d in memory", len(got), len(want))
	}
}

func TestQueries(t *testing.T) {
	l, _ := open(t, "", 0)
	for i, e := range []Entry{{Act: Drain, By: "ada"}, {Act: Reload, By: "bob"}, {Act: Drain, By: "bob"}, {Act: Undrain, By: "ada"}} {
		e.At, e.On = time.Unix(int64(i), 0), fmt.Sprint(i)
		l.Record(e)
	}
	for want, q := range map[string]Query{
		"0 1 2 3": {Last: 9},
		"2 3":     {Last: 2},
		"":        {},
		"1 2":     {Last: 9, By: "bob"},
		"0 2":     {Last: 9, Act: Drain},
		"2":       {Last: 1, Act: Drain},
		"0":       {Last: 9, Act: Drain, By: "ada"},
		"1 2 3":   {Last: 9, Since: time.Unix(1, 0)},
		"3":       {Last: 9, Since: time.Unix(1, 0), By: "ada"},
	} {
		var got []string
		for _, e := range l.Entries(q) {
			got = append(got, e.On)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v: %v, want %s", q, got, want)
		}
	}
	if l.Entries(Query{}) == nil {
		t.Error("nil, which is null in JSON")
	}
}

func TestDoneSaysHowItEnded(t *testing.T) {
	l, _ := open(t, filepath.Join(t.TempDir(), "made", "here"), 0)
	before := time.Now()
	if err := l.Done(Actor{"ada", "signal"}, Entry{Act: Reload, On: "config"}, nil); err != nil {
		t.Error(err)
	}
	no := errors.New("no")
	if err := l.Done(Actor{By: "bob"}, Entry{Act: Drain}, no); err != no {
		t.Error(err)
	}
	got := l.Entries(Query{Last: 2})
	if e := got[0]; e.By != "ada" || e.From != "signal" || e.On != "config" || e.Error != "" || e.At.Before(before) {
		t.Errorf("%+v", e)
	}
	if e := got[1]; e.By != "bob" || e.Error != "no" {
		t.Errorf("%+v", e)
	}
}
