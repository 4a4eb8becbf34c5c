package vrrp

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAnnouncement(t *testing.T) {
	mac := [macLen]byte{2, 0, 0, 0, 0, 0xa}
	for _, c := range []struct{ addr, want string }{
		{"192.0.2.100", `ffffffffffff 02000000000a 0806
			0001 0800 06 04 0001 02000000000a c0000264 02000000000a c0000264`},
		{"2001:db8::100", `333300000001 02000000000a 86dd
			60000000 0020 3a ff 20010db8000000000000000000000100 ff020000000000000000000000000001
			88 00 7723 a0000000 20010db8000000000000000000000100 02 01 02000000000a`},
	} {
		want, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(c.want))
		if err != nil {
			t.Fatal(err)
		}
		if got := announcement(netip.MustParseAddr(c.addr), mac); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", c.addr, got, want)
		}
	}
}

func TestAnnouncerPaces(t *testing.T) {
	var a announcer
	begin := time.Unix(1000, 0)
	if a.due(begin) || !a.deadline().IsZero() {
		t.Error("the zero announcer announces")
	}
	a.start(begin)
	var at []time.Duration
	for now := begin; now.Before(begin.Add(10 * time.Second)); now = now.Add(50 * time.Millisecond) {
		if a.due(now) {
			at = append(at, now.Sub(begin))
		}
	}
	if !slices.Equal(at, announceDelays[:]) {
		t.Errorf("announced at %v, want %v", at, announceDelays)
	}
	if !a.deadline().IsZero() {
		t.Error("there is a deadline after the last")
	}
	a.start(begin)
	a.stop()
	if a.due(begin) {
		t.Error("announces after stop")
	}
}
