package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a caller of a [Store] branches on. Any other error means that the store
// could not be asked or did not answer.
var (
	// ErrNotFound says that the key does not exist.
	ErrNotFound = errors.New("no such key")
	// ErrConflict says that the write was refused, and did not happen,
	// because the key is not what the caller thought: it has another index,
	// or another session holds it.
	ErrConflict = errors.New("key changed or is held by another session")
	// ErrBusy says that the store answered, but not all that was needed within
	// the time that the caller has.
	ErrBusy = errors.New("store answers too late")
	// ErrSession says that the session does not exist any more: it ran out,
	// was ended, or the store that knew it was replaced.
	ErrSession = errors.New("no such session")
)

// MaxValue is the largest value in bytes that a Store takes. Consul bounds a
// whole transaction at 512 KiB, and a value grows by a third on the way there.
const MaxValue = 256 << 10

// watchWait is how long a Watch blocks when nothing changes.
const watchWait = 10 * time.Second

// Entry is one key of a [Store] as it was read.
type Entry struct {
	Key   string
	Value []byte // never nil; not to be changed
	// Index is the store's counter at the last write of this key, never 0.
	Index uint64
	// Session holds the key, or is empty. When it ends, the key is deleted.
	Session Session
}

// Session is the identity of a lease on life. It ends when it is not renewed in
// time, and takes the keys bound to it along. The zero Session is none.
type Session string

// Binding is a key, its value, and the session that it is tied to.
type Binding struct {
	Key     string
	Value   []byte
	Session Session
}

// Store keeps keys and values for the fleet.
//
// Every write is atomic and durable when it returned nil. A write that returned
// [ErrConflict] or [ErrSession] did not happen. A write that returned any other
// error, the caller's own deadline among them, may have happened or may yet
// happen: the answer can be lost where the question was not. Such a caller
// reads the key again and compares; writing blindly once more is right only
// for Bind of the same value and for EndSession, which are idempotent.
//
// One counter numbers all writes: an entry's Index grows with each change and
// is never used twice. Writing the value that is already there changes nothing,
// the Index included. The counter may restart only when the store itself was
// replaced or restored from a copy.
//
// Keys are paths without a leading "/". Values are at most [MaxValue] bytes.
// Calls block until they are answered or ctx is done; they do not retry.
type Store interface {
	// Get reads one key, as of after the call began: it does not return what
	// an acknowledged write has already replaced. The error is ErrNotFound if
	// there is no such key.
	Get(ctx context.Context, key string) (Entry, error)

	// List reads all keys that begin with prefix, as of after the call began, in
	// order of key, with the index to give to Watch: no change after this reading has a lower or an
	// equal index. No keys is not an error.
	List(ctx context.Context, prefix string) ([]Entry, uint64, error)

	// Watch waits for a change under prefix after index after, then reads like
	// List. It returns at once if there has been one already, so a change
	// between List and Watch is not missed; after 0 always returns at once. It
	// may also return with nothing changed, at the latest after about half a
	// minute. An index lower than after is that of a store that was replaced,
	// restored, or has forgotten old deletions: what was read is current all
	// the same, so go on from it.
	Watch(ctx context.Context, prefix string, after uint64) ([]Entry, uint64, error)

	// CompareAndSwap writes value if the key's Index is still prev, or, with
	// prev 0, if there is no such key; else the error is ErrConflict. It
	// returns the entry's new Index. A session that holds the key goes on
	// holding it. A nil value deletes the key, which needs a prev; to delete
	// what is already gone succeeds.
	CompareAndSwap(ctx context.Context, key string, value []byte, prev uint64) (uint64, error)

	// Bind writes value and ties the key to s: the key is deleted when s ends.
	// An existing key that no session holds is taken over, value and all. The
	// error is ErrConflict if another session holds the key, ErrSession if s
	// has ended.
	Bind(ctx context.Context, key string, value []byte, s Session) error

	// BindAndSwap is Bind of b and CompareAndSwap of key in one step: both are
	// written or neither is. value is not nil. The error is ErrSession if the
	// session of b has ended, and ErrConflict if b.Key or key is not what the
	// caller thought.
	BindAndSwap(ctx context.Context, b Binding, key string, value []byte, prev uint64) error

	// NewSession begins a session that ends ttl after its last renewal, or
	// somewhat later: Consul may take twice as long, and starts over when its
	// leader changes. Never earlier. The name is for operators. A session
	// whose answer was lost ends by itself.
	NewSession(ctx context.Context, name string, ttl time.Duration) (Session, error)

	// RenewSession gives s its whole ttl again. The error is ErrSession if s
	// has ended.
	RenewSession(ctx context.Context, s Session) error

	// EndSession ends s and deletes its keys before it returns. To end a
	// session that has ended succeeds.
	EndSession(ctx context.Context, s Session) error
}

// checkPair refuses what no store could write in one step.
func checkPair(b Binding, key string, value []byte) error {
	if err := errors.Join(checkWrite(b.Key, b.Value), checkWrite(key, value)); err != nil {
		return err
	}
	if b.Key == key || value == nil {
		return fmt.Errorf("%s is bound and %s written in one step: two keys and two values are required", b.Key, key)
	}
	return nil
}

// checkWrite refuses a write that no store could keep.
func checkWrite(key string, value []byte) error {
	if key == "" || key[0] == '/' {
		return fmt.Errorf("invalid key %q", key)
	}
	if len(value) > MaxValue {
		return fmt.Errorf("value of %s has %d bytes, more than %d", key, len(value), MaxValue)
	}
	return nil
}
