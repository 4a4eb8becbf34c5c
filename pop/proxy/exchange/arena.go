package exchange

import "unsafe"

// Arena builds the strings of one exchange in memory that is used again for the
// next. A string that it gave out is valid until Reset. A nil arena allocates.
// It is not safe for concurrent use.
type Arena struct{ buf []byte }

// Reset takes back every string that was given out.
func (a *Arena) Reset() { a.buf = a.buf[:0] }

// Build returns what add appends. add only appends to its argument and returns
// the result.
func (a *Arena) Build(add func([]byte) []byte) string {
	if a == nil {
		return string(add(nil))
	}
	// Should the memory move, earlier strings keep the old one alive.
	start := len(a.buf)
	a.buf = add(a.buf)
	made := a.buf[start:]
	return unsafe.String(unsafe.SliceData(made), len(made))
}
