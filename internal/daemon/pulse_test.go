package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pulse
		if !p.Within(0) {
			t.Error("it has not begun")
		}
		p.Beat()
		time.Sleep(time.Second)
		if !p.Within(time.Second) || p.Within(time.Second-1) {
			t.Error("a beat was a second ago")
		}
		p.Beat()
		if !p.Within(0) {
			t.Error("a beat is now")
		}
	})
}
