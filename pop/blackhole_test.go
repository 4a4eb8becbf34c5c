package pop

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"anyedge/bgp"
)

// discarder is a [blackholer] that answers as told.
type discarder struct {
	slow bool

	mu   sync.Mutex
	err  error
	sets [][]netip.Addr
}

func (d *discarder) SetBlackholes(ctx context.Context, set []bgp.BlackholeRoute) error {
	addresses := []netip.Addr{}
	for _, b := range set {
		addresses = append(addresses, b.Address)
	}
	d.mu.Lock()
	err := d.err
	if err == nil {
		d.sets = append(d.sets, addresses)
	}
	d.mu.Unlock()
	if d.slow && err == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return err
}

// answer has it answer so from now on.
func (d *discarder) answer(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// told is how often it has taken a set, and the last of them.
func (d *discarder) told() (int, []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sets), d.sets[len(d.sets)-1]
}

func (d *discarder) last() []netip.Addr {
	_, set := d.told()
	return set
}

var (
	victim  = netip.MustParseAddr("192.0.2.7")
	victim6 = netip.MustParseAddr("2001:db8:1::7")
)

func withBlackholes(t *testing.T, f func(t *testing.T, b *blackholes, d *discarder)) {
	synctest.Test(t, func(t *testing.T) {
		d := new(discarder)
		b := newBlackholes(d, quiet)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.run(ctx) }()
		f(t, b, d)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func lasting(address netip.Addr, d time.Duration) Blackhole {
	return Blackhole{Address: address, At: time.Now(), Until: time.Now().Add(d)}
}

func TestBlackholeEndsInTime(t *testing.T) {
	withBlackholes(t, func(t *testing.T, b *blackholes, d *discarder) {
		for _, h := range []Blackhole{lasting(victim, time.Hour), lasting(victim6, time.Minute)} {
			if err := b.add(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute - time.Millisecond)
		synctest.Wait()
		if got := d.last(); !slices.Equal(got, []netip.Addr{victim, victim6}) {
			t.Errorf("before the end: %v", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := d.last(); !slices.Equal(got, []netip.Addr{victim}) || len(b.all()) != 1 {
			t.Errorf("after the end of one: %v, listed %v", got, b.all())
		}
		// A new request for the same address replaces the old one.
		if err := b.add(t.Context(), lasting(victim, 2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour - time.Millisecond)
		synctest.Wait()
		if got := d.last(); !slices.Equal(got, []netip.Addr{victim}) {
			t.Errorf("the old end was kept: %v", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := d.last(); len(got) != 0 {
			t.Errorf("in the end: %v", got)
		}
	})
}

func TestBlackholeRemoved(t *testing.T) {
	withBlackholes(t, func(t *testing.T, b *blackholes, d *discarder) {
		if err := b.add(t.Context(), lasting(victim, time.Hour)); err != nil {
			t.Fatal(err)
		}
		if found, err := b.remove(t.Context(), victim6); found || err != nil {
			t.Errorf("removed what was not there: %v, %v", found, err)
		}
		mapped := netip.AddrFrom16(victim.As16())
		if found, err := b.remove(t.Context(), mapped); !found || err != nil || len(d.last()) != 0 || len(b.all()) != 0 {
			t.Errorf("%v, %v, left %v", found, err, b.all())
		}
	})
}

// What the speaker refuses is not in force; what it is slow to do is.
func TestBlackholeRefusedOrSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(discarder)
		b := newBlackholes(d, quiet)
		refused := errors.New("not within an announced prefix")
		d.answer(refused)
		if err := b.add(t.Context(), lasting(victim, time.Hour)); !errors.Is(err, refused) || len(b.all()) != 0 {
			t.Errorf("%v, listed %v", err, b.all())
		}
		d.answer(nil)
		d.slow = true
		if err := b.add(t.Context(), lasting(victim, time.Hour)); err != nil || len(b.all()) != 1 {
			t.Errorf("%v, listed %v", err, b.all())
		}
	})
}

// A speaker that does not take the end is asked again until it does.
func TestEndOfABlackholeIsRetried(t *testing.T) {
	withBlackholes(t, func(t *testing.T, b *blackholes, d *discarder) {
		if err := b.add(t.Context(), lasting(victim, time.Minute)); err != nil {
			t.Fatal(err)
		}
		d.answer(errors.New("no"))
		time.Sleep(time.Minute + 10*blackholeRetry)
		synctest.Wait()
		if len(d.last()) != 1 {
			t.Fatal("ended all the same")
		}
		d.answer(nil)
		time.Sleep(blackholeRetry)
		synctest.Wait()
		if len(d.last()) != 0 {
			t.Error("was given up")
		}
		told, _ := d.told()
		time.Sleep(time.Hour)
		if now, _ := d.told(); now != told {
			t.Errorf("the speaker was told %d times more", now-told)
		}
	})
}

// A reload that takes a prefix away takes the blackholes in it along.
func TestBlackholesFollowThePrefixes(t *testing.T) {
	withBlackholes(t, func(t *testing.T, b *blackholes, d *discarder) {
		for _, a := range []netip.Addr{victim, victim6} {
			if err := b.add(t.Context(), lasting(a, time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		told, _ := d.told()
		b.within(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")})
		if now, _ := d.told(); now != told {
			t.Error("the speaker was told of no change")
		}
		b.within(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8:1::/48")})
		if got := d.last(); !slices.Equal(got, []netip.Addr{victim6}) {
			t.Errorf("left %v", got)
		}
	})
}
