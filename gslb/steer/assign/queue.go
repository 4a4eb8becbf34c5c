package assign

// move is a class that could leave its PoP and what that costs for each unit.
type move struct {
	cost  int32
	class int32
}

// queue is a binary heap of moves, cheapest first. It does without
// container/heap because its interface would box each of millions of moves.
type queue []move

// order makes a heap of moves in any order.
func (q queue) order() {
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.down(i)
	}
}

func (q *queue) push(m move) {
	*q = append(*q, m)
	s := *q
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if s[parent].cost <= s[i].cost {
			return
		}
		s[parent], s[i] = s[i], s[parent]
		i = parent
	}
}

// pop removes the first move.
func (q *queue) pop() {
	s := *q
	last := len(s) - 1
	s[0] = s[last]
	*q = s[:last]
	q.down(0)
}

func (q queue) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q[child+1].cost < q[child].cost {
			child++
		}
		if q[i].cost <= q[child].cost {
			return
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}
