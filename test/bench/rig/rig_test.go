package rig

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"anyedge/configs"
)

func testRig(t *testing.T) *Rig {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(t.TempDir(), binary)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Every kind's config is rendered, and by the program itself where it is
// installed found to be good.
func TestConfigsAreValid(t *testing.T) {
	r := testRig(t)
	for kind, checks := range map[Kind][]string{
		Anyedge: nil, // by the package that reads it
		HAProxy: {"haproxy", "-c", "-f"},
		Nginx:   {"nginx", "-t", "-e", "stderr", "-c"},
		Caddy:   {"caddy", "adapt", "--validate", "--adapter", "caddyfile", "--config"},
		origin:  {"nginx", "-t", "-e", "stderr", "-c"},
	} {
		t.Run(string(kind), func(t *testing.T) {
			host := hosts[kind]
			path, err := r.render(kind, settings{
				Dir:   r.dir,
				Clear: netip.AddrPortFrom(host, clearPort), TLS: netip.AddrPortFrom(host, tlsPort),
				Admin: netip.AddrPortFrom(host, adminPort), Origin: netip.AddrPortFrom(hosts[origin], originPort),
				Connections: r.Connections(), Descriptors: r.descriptors,
			})
			if err != nil {
				t.Fatal(err)
			}
			if checks == nil {
				if got, err := configs.Check(path); got != "pop" || err != nil {
					t.Errorf("a %q config: %v", got, err)
				}
				return
			}
			tool, err := Find(checks[0])
			if err != nil {
				t.Skipf("%s is not installed", checks[0])
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if out, err := exec.CommandContext(ctx, tool, append(checks[1:], path)...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestOccupiedAddressIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := l.Addr().(*net.TCPAddr).AddrPort()
	if err := vacant(t.Context(), netip.AddrPort{}, taken); err == nil {
		t.Error("a stranger's address counts as vacant")
	}
	l.Close()
	if err := vacant(t.Context(), taken); err != nil {
		t.Error(err)
	}
}

// A client of the rig takes the rig's certificate and no other.
func TestClientTLSKnowsTheCertificate(t *testing.T) {
	r, other := testRig(t), testRig(t)
	for _, tt := range []struct {
		name string
		of   *Rig
		want string // in the error
	}{
		{"own", r, ""},
		{"of another rig", other, "not the certificate of the rig"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pair, err := tls.LoadX509KeyPair(tt.of.dir+"/cert.pem", tt.of.dir+"/key.pem")
			if err != nil {
				t.Fatal(err)
			}
			near, far := net.Pipe()
			defer near.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer far.Close()
				_ = tls.Server(far, &tls.Config{Certificates: []tls.Certificate{pair}}).HandshakeContext(t.Context())
			}()
			err = tls.Client(near, r.ClientTLS()).HandshakeContext(t.Context())
			near.Close()
			<-done
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
