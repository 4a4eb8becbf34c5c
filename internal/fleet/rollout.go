package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A rollout is one document that everybody follows, and the configs that it
// names, each under the sum of its contents. Those are many and large, and a
// node needs one of them once: they are read when they are needed, not followed.

// Rollout reads the rollout as the store has it now. The error is [ErrNotFound]
// if there never was one.
func (f *Fleet) Rollout(ctx context.Context) ([]byte, error) {
	e, err := f.store.Get(ctx, keyRollout)
	if err != nil {
		return nil, err
	}
	if err := f.validRollout(e.Value); err != nil {
		return nil, fmt.Errorf("rollout: %w", err)
	}
	return e.Value, nil
}

// SwapRollout writes next in place of the rollout that was seen, nil for none.
// The error is [ErrConflict] if there is another by now.
func (f *Fleet) SwapRollout(ctx context.Context, seen, next []byte) error {
	if err := f.validRollout(next); err != nil {
		return fmt.Errorf("rollout: %w", err)
	}
	return f.update(ctx, keyRollout, func(old []byte) ([]byte, error) {
		if !bytes.Equal(old, seen) && !bytes.Equal(old, next) {
			return nil, ErrConflict
		}
		return next, nil
	})
}

// PutDocument writes a document of at most [MaxValue] bytes and returns its sum.
// It is not sealed, so it must not be secret.
func (f *Fleet) PutDocument(ctx context.Context, document []byte) (sum string, err error) {
	sum = documentSum(document)
	if len(document) == 0 {
		return "", errors.New("document: empty")
	}
	return sum, f.update(ctx, prefixDocuments+sum, func([]byte) ([]byte, error) { return document, nil })
}

// Document reads the document of a sum. The error is [ErrNotFound] if there is
// none; one with other contents than its sum says is an error too.
func (f *Fleet) Document(ctx context.Context, sum string) ([]byte, error) {
	e, err := f.store.Get(ctx, prefixDocuments+sum)
	if err != nil {
		return nil, err
	}
	if documentSum(e.Value) != sum {
		return nil, fmt.Errorf("document %.80q: the contents are others", sum)
	}
	return e.Value, nil
}

// PruneDocuments deletes every document but those with the sums to keep.
func (f *Fleet) PruneDocuments(ctx context.Context, keep []string) error {
	entries, _, err := f.store.List(ctx, prefixDocuments)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !slices.Contains(keep, strings.TrimPrefix(e.Key, prefixDocuments)) {
			_, err := f.store.CompareAndSwap(ctx, e.Key, nil, e.Index)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func documentSum(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}
