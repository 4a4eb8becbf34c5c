package configs

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestVRRPDefaults(t *testing.T) {
	p, err := ParsePop("pop.yaml", []byte(smallPop+"vrrp: [{interface: eth0, vrid: 51, addresses: [192.0.2.1/24]}, {interface: eth1, vrid: 51, addresses: ['fe80::1/64'], preempt: false}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	want := []VRRP{
		{Interface: "eth0", VRID: 51, Addresses: []InterfaceAddress{{netip.MustParsePrefix("192.0.2.1/24")}},
			Priority: 100, DepreferredPriority: 1, Interval: Duration(100 * time.Millisecond), Preempt: &yes},
		{Interface: "eth1", VRID: 51, Addresses: []InterfaceAddress{{netip.MustParsePrefix("fe80::1/64")}},
			Priority: 100, DepreferredPriority: 1, Interval: Duration(100 * time.Millisecond), Preempt: &no},
	}
	if !reflect.DeepEqual(p.VRRP, want) {
		t.Errorf("got %+v, want %+v", p.VRRP, want)
	}
}

// Every reference file says the same when it is written anew.
func TestReferenceEncodes(t *testing.T) {
	for _, k := range kinds {
		for _, file := range referenceFiles(t, k.name) {
			cfg, err := k.load(file)
			if err != nil {
				t.Fatal(err)
			}
			text, err := Encode(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := k.parse("", text); err != nil || !reflect.DeepEqual(again, cfg) {
				t.Errorf("%s: %+v, %v\nwant %+v", file, again, err, cfg)
			}
		}
	}
}
