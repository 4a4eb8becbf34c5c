package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// zoneKeysPace lets one reading bring what several zones changed at once.
const zoneKeysPace = 200 * time.Millisecond

// ZoneKeys is the ring of DNSSEC keys of a zone.
type ZoneKeys struct {
	Ring  []byte // in clear: it goes into no log and no answer
	Index uint64 // the prev to give to PutZoneKeys
}

// ZoneKeys reads the ring of a zone's DNSSEC keys as the store has it now. The error
// is [ErrNotFound] if there is none. Of a ring that cannot be opened or is not
// valid, which is an error too, the index comes with it.
func (f *Fleet) ZoneKeys(ctx context.Context, zone string) (ZoneKeys, error) {
	e, err := f.store.Get(ctx, prefixZoneKeys+zone)
	if err != nil {
		return ZoneKeys{}, err
	}
	keys, err := f.openZoneKeys(zone, e)
	return keys, err
}

// PutZoneKeys writes the ring of a zone in place of the one with index prev, or the
// first one with prev 0, and returns its index. The error is [ErrConflict] if another
// node was faster. The zone is in lower case and without the final dot.
func (f *Fleet) PutZoneKeys(ctx context.Context, zone string, ring []byte, prev uint64) (uint64, error) {
	if err := f.checkZoneKeys(zone, ring); err != nil {
		return 0, fmt.Errorf("keys of %s: %w", zone, err)
	}
	return f.putSealed(ctx, prefixZoneKeys+zone, ring, prev)
}

func (f *Fleet) openZoneKeys(zone string, e Entry) (ZoneKeys, error) {
	ring, err := f.open(e.Key, e.Value)
	if err == nil {
		err = f.checkZoneKeys(zone, ring)
	}
	if err != nil {
		return ZoneKeys{Index: e.Index}, fmt.Errorf("keys of %s: %w", zone, err)
	}
	return ZoneKeys{ring, e.Index}, nil
}

func (f *Fleet) checkZoneKeys(zone string, ring []byte) error {
	switch {
	case len(zone) > maxZone || zone != strings.ToLower(zone) || strings.Contains(zone, "/"):
		return fmt.Errorf("%.80q is not the name of a zone in lower case", zone)
	case f.validKeys == nil:
		return errors.New("this fleet was not made to have any")
	}
	return f.validKeys(zone, ring)
}

// RejectsZoneKeys reports whether the ring of a zone in the store is not valid. It
// must not be replaced by one that does not follow from it.
func (v *View) RejectsZoneKeys(zone string) bool {
	return slices.Contains(v.Rejected, prefixZoneKeys+zone)
}

// maxZone is the longest name of a zone in presentation form, in bytes.
const maxZone = 1004

// zoneKeysPart fills in what comes from prefixZoneKeys.
func zoneKeysPart(v *View, list []kept) {
	v.ZoneKeys = make(map[string]ZoneKeys, len(list))
	for _, item := range list {
		if keys, ok := item.good.(ZoneKeys); ok {
			v.ZoneKeys[strings.TrimPrefix(item.entry.Key, prefixZoneKeys)] = keys
		}
	}
}
