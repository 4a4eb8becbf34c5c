package buffers

import (
	"sync"
	"testing"
)

func TestLentCountsWhatIsOut(t *testing.T) {
	values := NewPool(100, func() *int { return new(int) })
	v := values.Get()
	for _, c := range []struct{ size, length int }{{1, HeadSize}, {HeadSize, HeadSize}, {HeadSize + 1, PieceSize}, {PieceSize + 1, PieceSize + 1}} {
		before := Lent()
		b := Take(c.size)
		if len(b.Bytes) != c.length || Lent()-before != int64(c.length) {
			t.Errorf("Take(%d): length %d, lent %d, want %d", c.size, len(b.Bytes), Lent()-before, c.length)
		}
		Give(b)
		if Lent() != before {
			t.Errorf("after Give: %d bytes more than before Take(%d)", Lent()-before, c.size)
		}
	}
	Give(nil)
	if Lent() != 100 {
		t.Errorf("%d bytes are lent, want the 100 of one value", Lent())
	}
	values.Put(v)
	if Lent() != 0 {
		t.Errorf("%d bytes are lent, want none", Lent())
	}
}

// What one goroutine takes another may give back.
func TestLentAcrossGoroutines(t *testing.T) {
	taken := make(chan *Buffer)
	var tasks sync.WaitGroup
	for range 8 {
		tasks.Go(func() {
			for range 100 {
				taken <- Take(HeadSize)
			}
		})
		tasks.Go(func() {
			for range 100 {
				Give(<-taken)
			}
		})
	}
	tasks.Wait()
	if Lent() != 0 {
		t.Errorf("%d bytes are lent, want none", Lent())
	}
}

func BenchmarkTake(b *testing.B) {
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Give(Take(HeadSize))
		}
	})
}
