package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxBody bounds a request to [Handler]: a value in base64 and what is around it.
const maxBody = 2 * MaxValue

// Handler serves m over the part of Consul's HTTP API that [Consul] uses, so
// that several processes of one machine share a fleet with no Consul installed.
// "curl .../v1/kv/?recurse" works too.
//
//	GET  /v1/status/leader
//	GET  /v1/kv/KEY            with recurse, index and wait
//	PUT  /v1/kv/KEY            with acquire
//	PUT  /v1/txn               one KV operation: cas or delete-cas
//	PUT  /v1/session/create    TTL and Name count; the behavior is always "delete"
//	PUT  /v1/session/renew/ID
//	PUT  /v1/session/destroy/ID
//
// It asks nobody for a token, so it belongs on loopback. It is no Consul: one
// process, no disk, no data centers; a session's ttl has no lower bound.
func Handler(m *Memory) http.Handler {
	h := memoryHandler{m}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status/leader", h.leader)
	mux.HandleFunc("GET /v1/kv/{key...}", h.read)
	mux.HandleFunc("PUT /v1/kv/{key...}", h.acquire)
	mux.HandleFunc("PUT /v1/txn", h.txn)
	mux.HandleFunc("PUT /v1/session/create", h.create)
	mux.HandleFunc("PUT /v1/session/renew/{id}", h.renew)
	mux.HandleFunc("PUT /v1/session/destroy/{id}", h.destroy)
	return mux
}

type memoryHandler struct{ store *Memory }

// wirePair is a key as Consul writes it.
type wirePair struct {
	Key         string
	Value       []byte
	Flags       uint64
	LockIndex   uint64
	CreateIndex uint64
	ModifyIndex uint64
	Session     string `json:",omitempty"`
}

func toWire(e Entry) wirePair {
	p := wirePair{Key: e.Key, Value: e.Value, ModifyIndex: e.Index, CreateIndex: e.Index, Session: string(e.Session)}
	if e.Session != "" {
		p.LockIndex = 1
	}
	return p
}

func (h memoryHandler) leader(w http.ResponseWriter, _ *http.Request) { writeJSON(w, "127.0.0.1:8300") }

func (h memoryHandler) read(w http.ResponseWriter, r *http.Request) {
	key, query := r.PathValue("key"), r.URL.Query()
	var entries []Entry
	var index uint64
	var err error
	if query.Has("recurse") {
		entries, index, err = h.list(r.Context(), key, query.Get("index"), query.Get("wait"))
	} else {
		var e Entry
		e, err = h.store.Get(r.Context(), key)
		entries, index = []Entry{e}, e.Index
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		fail(w, err)
		return
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(max(index, 1), 10))
	w.Header().Set("X-Consul-Knownleader", "true")
	w.Header().Set("X-Consul-Lastcontact", "0")
	if err != nil || len(entries) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	pairs := make([]wirePair, len(entries))
	for i, e := range entries {
		pairs[i] = toWire(e)
	}
	writeJSON(w, pairs)
}

// list reads everything under prefix, after waiting for a change if an index is
// given, as long as wait says.
func (h memoryHandler) list(ctx context.Context, prefix, index, wait string) ([]Entry, uint64, error) {
	if index == "" || index == "0" {
		return h.store.List(ctx, prefix)
	}
	after, err := strconv.ParseUint(index, 10, 64)
	if err != nil {
		return nil, 0, badRequest{fmt.Errorf("index: %w", err)}
	}
	patience := watchWait
	if wait != "" {
		if patience, err = time.ParseDuration(wait); err != nil {
			return nil, 0, badRequest{fmt.Errorf("wait: %w", err)}
		}
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	entries, now, err := h.store.Watch(waiting, prefix, after)
	if errors.Is(err, context.DeadlineExceeded) {
		return h.store.List(ctx, prefix)
	}
	return entries, now, err
}

func (h memoryHandler) acquire(w http.ResponseWriter, r *http.Request) {
	session := r.URL.Query().Get("acquire")
	if session == "" {
		fail(w, badRequest{errors.New("only acquire is served here; other writes go through /v1/txn")})
		return
	}
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(w, badRequest{err})
		return
	}
	err = h.store.Bind(r.Context(), r.PathValue("key"), value, Session(session))
	switch {
	case errors.Is(err, ErrConflict):
		writeJSON(w, false)
	case errors.Is(err, ErrSession):
		fail(w, fmt.Errorf("%s %q", invalidSession, session))
	case err != nil:
		fail(w, err)
	default:
		writeJSON(w, true)
	}
}

func (h memoryHandler) txn(w http.ResponseWriter, r *http.Request) {
	type failure struct {
		OpIndex int
		What    string
	}
	type result struct{ KV wirePair }
	var reply struct {
		Results []result
		Errors  []failure
	}
	var ops []struct {
		KV *struct {
			Verb, Key string
			Value     []byte
			Index     uint64
		}
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&ops); err != nil {
		fail(w, badRequest{err})
		return
	}
	if len(ops) != 1 || ops[0].KV == nil {
		fail(w, badRequest{errors.New("exactly one KV operation is served here")})
		return
	}
	op := ops[0].KV
	value := append([]byte{}, op.Value...)
	switch op.Verb {
	case "cas":
	case "delete-cas":
		value = nil
	default:
		fail(w, badRequest{fmt.Errorf("operation %q is not served here", op.Verb)})
		return
	}
	index, err := h.store.CompareAndSwap(r.Context(), op.Key, value, op.Index)
	switch {
	case errors.Is(err, ErrConflict):
		reply.Errors = []failure{{What: fmt.Sprintf("failed to write key %q, %s", op.Key, staleIndex)}}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
	case err != nil:
		fail(w, err)
		return
	case value != nil:
		reply.Results = []result{{wirePair{Key: op.Key, CreateIndex: index, ModifyIndex: index}}}
	}
	writeJSON(w, reply)
}

func (h memoryHandler) create(w http.ResponseWriter, r *http.Request) {
	var ask struct{ Name, TTL string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&ask); err != nil {
		fail(w, badRequest{err})
		return
	}
	ttl, err := time.ParseDuration(ask.TTL)
	if err != nil {
		fail(w, badRequest{fmt.Errorf("ttl: %w", err)})
		return
	}
	s, err := h.store.NewSession(r.Context(), ask.Name, ttl)
	if err != nil {
		fail(w, badRequest{err})
		return
	}
	writeJSON(w, map[string]string{"ID": string(s)})
}

func (h memoryHandler) renew(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	err := h.store.RenewSession(r.Context(), Session(id))
	switch {
	case errors.Is(err, ErrSession):
		http.Error(w, fmt.Sprintf("session %q not found", id), http.StatusNotFound)
	case err != nil:
		fail(w, err)
	default:
		writeJSON(w, []map[string]string{{"ID": id}})
	}
}

func (h memoryHandler) destroy(w http.ResponseWriter, r *http.Request) {
	if err := h.store.EndSession(r.Context(), Session(r.PathValue("id"))); err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, true)
}

// badRequest marks an error that is the client's.
type badRequest struct{ error }

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if errors.As(err, new(badRequest)) {
		code = http.StatusBadRequest
	}
	http.Error(w, err.Error(), code)
}

// writeJSON answers with v. A client that has gone away is not our error.
func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
