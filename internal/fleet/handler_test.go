package fleet_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"anyedge/internal/fleet"
)

// What the handler does not serve it refuses, rather than doing something else.
func TestHandlerRefuses(t *testing.T) {
	memory := fleet.NewMemory()
	handler := fleet.Handler(memory)
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/v1/status/leader", "", 200},
		{"GET", "/v1/kv/none", "", 404},
		{"GET", "/v1/kv/?recurse", "", 404},
		{"GET", "/v1/kv/?recurse&index=x", "", 400},
		{"GET", "/v1/kv/?recurse&index=1&wait=soon", "", 400},
		{"PUT", "/v1/kv/k", "v", 400},
		{"PUT", "/v1/kv/k?acquire=none", "v", 500},
		{"PUT", "/v1/kv/k?acquire=none", strings.Repeat("x", 1<<20), 400},
		{"DELETE", "/v1/kv/k", "", 405},
		{"PUT", "/v1/txn", "", 400},
		{"PUT", "/v1/txn", "[]", 400},
		{"PUT", "/v1/txn", `[{"Node":{}}]`, 400},
		{"PUT", "/v1/txn", `[{"KV":{"Verb":"set","Key":"k"}}]`, 400},
		{"PUT", "/v1/txn", `[{"KV":{"Verb":"cas","Key":"k"}},{"KV":{"Verb":"cas","Key":"l"}}]`, 400},
		{"PUT", "/v1/txn", `[{"KV":{"Verb":"cas","Key":"k","Index":9}}]`, 409},
		{"PUT", "/v1/session/create", `{}`, 400},
		{"PUT", "/v1/session/create", `{"TTL":"-1s"}`, 400},
		{"PUT", "/v1/session/create", `nonsense`, 400},
		{"PUT", "/v1/session/renew/none", "", 404},
		{"PUT", "/v1/session/destroy/none", "", 200},
		{"GET", "/v1/agent/self", "", 404},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(test.method, test.path, strings.NewReader(test.body)))
		if w.Code != test.want {
			t.Errorf("%s %s: %d, want %d: %s", test.method, test.path, w.Code, test.want, w.Body)
		}
	}
	if entries, _, err := memory.List(t.Context(), ""); err != nil || len(entries) != 0 {
		t.Errorf("something was written: %v %v", entries, err)
	}
}

// Reading by hand works.
func TestHandlerListsByHand(t *testing.T) {
	memory := fleet.NewMemory()
	if _, err := memory.CompareAndSwap(t.Context(), "a/b", []byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	fleet.Handler(memory).ServeHTTP(w, httptest.NewRequest("GET", "/v1/kv/?recurse", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"Key":"a/b"`) || w.Header().Get("X-Consul-Index") != "2" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
