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
//	PUT  /v1/txn               cas or delete-cas of one key, or lock of one and cas of another
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

// wireOp is an operation of a transaction.
type wireOp struct {
	Verb, Key, Session string
	Value              []byte
	Index              uint64
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
	var body []struct{ KV *wireOp }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&body); err != nil {
		fail(w, badRequest{err})
		return
	}
	var ops []wireOp
	for _, op := range body {
		if op.KV != nil {
			ops = append(ops, *op.KV)
		}
	}
	written, err := h.write(r.Context(), ops)
	at := max(len(ops)-1, 0)
	switch {
	case errors.Is(err, ErrConflict):
		reply.Errors = []failure{{at, fmt.Sprintf("failed to write key %q, %s", ops[at].Key, staleIndex)}}
	case errors.Is(err, ErrSession):
		reply.Errors = []failure{{0, fmt.Sprintf("%s %q", invalidSession, ops[0].Session)}}
	case err != nil:
		fail(w, err)
		return
	case written != 0:
		reply.Results = []result{{wirePair{Key: ops[at].Key, CreateIndex: written, ModifyIndex: written}}}
	}
	if reply.Errors != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
	}
	writeJSON(w, reply)
}

// write performs the operations of a transaction. The index is that of a value
// written by cas alone, which is all whose answer is asked for.
func (h memoryHandler) write(ctx context.Context, ops []wireOp) (index uint64, err error) {
	switch {
	case len(ops) == 1 && ops[0].Verb == "cas":
		return h.store.CompareAndSwap(ctx, ops[0].Key, append([]byte{}, ops[0].Value...), ops[0].Index)
	case len(ops) == 1 && ops[0].Verb == "delete-cas":
		_, err := h.store.CompareAndSwap(ctx, ops[0].Key, nil, ops[0].Index)
		return 0, err
	case len(ops) == 2 && ops[0].Verb == "lock" && ops[1].Verb == "cas":
		b := Binding{ops[0].Key, ops[0].Value, Session(ops[0].Session)}
		return 0, h.store.BindAndSwap(ctx, b, ops[1].Key, append([]byte{}, ops[1].Value...), ops[1].Index)
	}
	return 0, badRequest{errors.New("served here are cas, delete-cas, and lock and cas together")}
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
