package stdhttp

import (
	"net/http"
	"reflect"
	"testing"

	"anyedge/pop/proxy/exchange"
)

func TestFieldsOf(t *testing.T) {
	h := http.Header{"X-B": {"2", "3"}, "Content-Length": {"9"}, "Host": {"h"}, "X-A": {"1"}, "X-None": nil}
	want := exchange.Fields{{Name: "X-A", Value: "1"}, {Name: "X-B", Value: "2"}, {Name: "X-B", Value: "3"}}
	if got := fieldsOf(h); !reflect.DeepEqual(got, want) {
		t.Errorf("fieldsOf = %v, want %v", got, want)
	}
}
