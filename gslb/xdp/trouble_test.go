package xdp

import (
	"errors"
	"log/slog"
	"testing"
)

// Whoever relies on the program's answers hears when it has none, and why.
func TestTrouble(t *testing.T) {
	p := New(Options{Interface: "none0", Log: slog.New(slog.DiscardHandler)})
	if p.Attached() || p.Trouble() != nil {
		t.Error("before it runs")
	}
	a := attachment{Program: p}
	gone, tooLarge := errors.New("no interface"), errors.New("too large")
	for _, test := range []struct {
		beat, missing error
		inForce       bool
	}{{gone, nil, true}, {nil, tooLarge, false}, {nil, nil, true}} {
		a.missing, a.inForce = test.missing, test.inForce
		a.tell(test.beat)
		err := p.Trouble()
		if p.Attached() || errors.Is(err, gone) != (test.beat != nil) || errors.Is(err, tooLarge) != (test.missing != nil) {
			t.Errorf("%+v: %t, %v", test, p.Attached(), err)
		}
	}
}
