package rig

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "4242 (a (b) c) S 17 4242 4242 0 -1 4194304 100 0 0 0 250 31 9 9 20 0 4 0 12345 99999744 321 18446744073709551615 1 1 0\n"
	got, err := parseStat([]byte(line))
	want := stat{pid: 4242, parent: 17, cpu: 2810 * time.Millisecond, resident: 321 * int64(os.Getpagesize())}
	if err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "4242 a S 17", "4242 (a) S 17 1 2", "x (a) S 17 4242 4242 0 -1 4194304 100 0 0 0 250 31 9 9 20 0 4 0 12345 99999744 321\n"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestFamilyFindsThisProcess(t *testing.T) {
	all, err := family(os.Getpid())
	if err != nil || len(all) == 0 || all[0].pid != os.Getpid() || all[0].parent != os.Getppid() || all[0].resident == 0 {
		t.Errorf("family = %+v, %v", all, err)
	}
}
