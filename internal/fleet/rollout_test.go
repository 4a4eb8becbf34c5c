package fleet

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestRolloutIsSwappedWhole(t *testing.T) {
	f, err := New(Config{Store: NewMemory(), ValidRollout: func(r []byte) error {
		if !bytes.HasPrefix(r, []byte("good")) {
			return errors.New("not good")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := f.Rollout(ctx); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the first: %v", err)
	}
	one, two := []byte("good 1"), []byte("good 2")
	for _, c := range []struct {
		seen, next []byte
		want       error
	}{
		{one, two, ErrConflict}, {nil, one, nil}, {nil, one, nil}, {nil, two, ErrConflict}, {one, two, nil}, {one, two, nil}, {one, one, ErrConflict},
	} {
		if err := f.SwapRollout(ctx, c.seen, c.next); !errors.Is(err, c.want) {
			t.Errorf("%q for %q: %v, want %v", c.next, c.seen, err, c.want)
		}
	}
	if got, err := f.Rollout(ctx); err != nil || !bytes.Equal(got, two) {
		t.Errorf("%q, %v", got, err)
	}
	if err := f.SwapRollout(ctx, two, []byte("bad")); err == nil || !strings.Contains(err.Error(), "not good") {
		t.Errorf("bad rollout: %v", err)
	}
}

func TestDocumentsAreWhatTheirSumsSay(t *testing.T) {
	store := NewMemory()
	f, err := New(Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	var sums []string
	for _, text := range []string{"a", "b", "c", "a"} {
		sum, err := f.PutDocument(ctx, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Document(ctx, sum); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
		sums = append(sums, sum)
	}
	if sums[0] != sums[3] || sums[0] == sums[1] {
		t.Errorf("sums %v", sums)
	}
	for _, size := range []int{0, MaxValue + 1} {
		if _, err := f.PutDocument(ctx, make([]byte, size)); err == nil {
			t.Errorf("took %d bytes", size)
		}
	}
	if err := f.PruneDocuments(ctx, sums[1:2]); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Document(ctx, sums[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	e, err := store.Get(ctx, prefixDocuments+sums[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CompareAndSwap(ctx, e.Key, []byte("forged"), e.Index); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Document(ctx, sums[1]); err == nil || !strings.Contains(err.Error(), "others") {
		t.Errorf("forged document: %v", err)
	}
}
