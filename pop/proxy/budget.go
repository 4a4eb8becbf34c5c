package proxy

import "sync/atomic"

// budget bounds a pool's retries and hedges to a share of its requests, so that
// origins in trouble do not get many times their load. It is a bucket: requests
// put shares of a token in, every retry takes a whole one out.
//
// Routes of one pool may have different shares; each request puts in that of
// its own route.
type budget struct{ spent atomic.Int64 } // millitokens; at 0 the bucket is full

// budgetReserve is how many tokens a full bucket holds: what a quiet pool may
// spend at once.
const budgetReserve = 10

// deposit is called for each request. share is in thousandths.
func (b *budget) deposit(share int64) {
	// The bucket is full almost always, and is then only read.
	if spent := b.spent.Load(); spent > 0 {
		b.spent.CompareAndSwap(spent, max(0, spent-share)) // a lost race forgoes a share
	}
}

// withdraw takes the token of a retry, and returns whether there was one.
func (b *budget) withdraw() bool {
	for {
		spent := b.spent.Load()
		if spent+1000 > 1000*budgetReserve {
			return false
		}
		if b.spent.CompareAndSwap(spent, spent+1000) {
			return true
		}
	}
}
