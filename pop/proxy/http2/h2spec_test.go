package http2

import (
	"net"
	"os"
	"os/exec"
	"testing"
)

// h2spec names the binary of github.com/summerwind/h2spec, if there is one.
const h2spec = "ANYEDGE_H2SPEC"

func TestH2Spec(t *testing.T) {
	binary := os.Getenv(h2spec)
	if binary == "" {
		t.Skip(h2spec + " does not name the h2spec binary")
	}
	for name, args := range map[string][]string{"clear": nil, "tls": {"-t", "-k"}} {
		t.Run(name, func(t *testing.T) {
			checkBuffers(t)
			front := NewFront(config(testServer))
			secure, _ := certificate()
			if args == nil {
				secure = nil
			}
			host, port, _ := net.SplitHostPort(serve(t, front, secure))
			out, err := exec.Command(binary, append(args, "-h", host, "-p", port, "-o", "2", "--strict")...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out[max(0, len(out)-200):])
		})
	}
}
