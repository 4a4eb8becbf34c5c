package matrix

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"anyedge/internal/daemon"
)

// nginxSize is the size of nginx's file in bytes.
const nginxSize = 1 << 10

// nginxPath is where nginx is; "" if it is not installed.
func nginxPath() string {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// serveNginx starts nginx with one file, on a free port.
func serveNginx(t *testing.T) net.Addr {
	t.Helper()
	// Not t.TempDir, whose parents only this user may enter: a worker of nginx
	// that gave up root must.
	dir, err := os.MkdirTemp("", "anyedge-matrix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr()
	l.Close()
	config := fmt.Sprintf(`daemon off;
pid %[1]s/pid;
worker_processes 1;
error_log stderr;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server { listen %[2]s; root %[1]s; location /target { return 204; } }
}
`, dir, address)
	file := filepath.Join(dir, "nginx.conf")
	for path, data := range map[string][]byte{file: []byte(config), filepath.Join(dir, "1k"): bytes.Repeat([]byte("x"), nginxSize)} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	child, err := daemon.Start(exec.Command(nginxPath(), "-c", file, "-e", "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		child.Stop(ctx)
	})
	return address
}
