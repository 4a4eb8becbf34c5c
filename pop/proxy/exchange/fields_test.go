package exchange

import (
	"slices"
	"testing"
)

func TestFields(t *testing.T) {
	f := Fields{{"Accept", "a"}, {"x-list", "one, two ,,"}, {"ACCEPT", "b"}, {"X-List", "three"}}
	if got := f.Get("accept"); got != "a" {
		t.Errorf("Get = %q, want the first value", got)
	}
	if f.Has("acc") || !f.Has("X-LIST") {
		t.Error("Has is wrong")
	}
	if got := slices.Collect(f.Values("Accept")); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Values = %q", got)
	}
	if got := slices.Collect(f.List("X-List")); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("List = %q", got)
	}
	if got := f.Join("Accept"); got != "a, b" {
		t.Errorf("Join = %q", got)
	}
	f.Set("accept", "c")
	want := Fields{{"x-list", "one, two ,,"}, {"X-List", "three"}, {"accept", "c"}}
	if !slices.Equal(f, want) {
		t.Errorf("after Set: %v, want %v", f, want)
	}
	f.Del("X-LIST")
	if !slices.Equal(f, want[2:]) {
		t.Errorf("after Del: %v, want %v", f, want[2:])
	}
}

func TestTakeHop(t *testing.T) {
	many := Fields{}
	for range maxOptions + 1 {
		many.Add("Connection", "x")
	}
	tests := []struct {
		name   string
		fields Fields
		want   Fields
		hop    Hop
		err    error
	}{
		{"nothing", Fields{{"Accept", "*/*"}}, Fields{{"Accept", "*/*"}}, Hop{}, nil},
		{"framing in disguise", Fields{{"Content_Length", "5"}, {"transfer.encoding", "chunked"}, {"Content-Length", "5"}, {"Content_Lengths", "x"}},
			Fields{{"Content-Length", "5"}, {"Content_Lengths", "x"}}, Hop{}, nil},
		{"by definition",
			Fields{
				{"connection", "close"}, {"Keep-Alive", "5"}, {"Proxy-Connection", "x"}, {"TE", "gzip"}, {"Trailer", "x"},
				{"Transfer-Encoding", "chunked"}, {"Upgrade", "websocket"}, {"HTTP2-Settings", "AA"},
				{"Proxy-Authorization", "Basic x"}, {"Authorization", "Basic y"},
			},
			Fields{{"Authorization", "Basic y"}}, Hop{}, nil},
		{"named in Connection",
			Fields{{"Connection", "X-A, x-b"}, {"X-A", "1"}, {"X-B", "2"}, {"X-AB", "3"}, {"Connection", "x-c"}, {"X-c", "4"}},
			Fields{{"X-AB", "3"}}, Hop{}, nil},
		{"upgrade", Fields{{"Connection", "keep-alive, Upgrade"}, {"upgrade", "websocket"}},
			Fields{}, Hop{Upgrade: "websocket"}, nil},
		{"upgrade not named", Fields{{"Connection", "keep-alive"}, {"Upgrade", "websocket"}}, Fields{}, Hop{}, nil},
		{"trailers", Fields{{"TE", "gzip;q=0.5, Trailers"}}, Fields{}, Hop{Trailers: true}, nil},
		{"too many options", many, nil, Hop{}, ErrConnectionOptions},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := slices.Clone(tt.fields)
			hop, err := f.TakeHop()
			if err != tt.err {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && (hop != tt.hop || !slices.Equal(f, tt.want)) {
				t.Errorf("left %v and %+v, want %v and %+v", f, hop, tt.want, tt.hop)
			}
		})
	}
}

func TestTrailerAllowed(t *testing.T) {
	for name, want := range map[string]bool{
		"Grpc-Status": true, "Server-Timing": true, "X-Checksum": true,
		"content-length": false, "Transfer-Encoding": false, "HOST": false, "Authorization": false, "Trailer": false,
		"X-Forwarded-For": false, "x_forwarded_for": false, "Anyedge-Probe": false, "": false, ":status": false,
		"Connection": false, "Set-Cookie": false,
	} {
		if got := TrailerAllowed(name); got != want {
			t.Errorf("TrailerAllowed(%q) = %v", name, got)
		}
	}
}
