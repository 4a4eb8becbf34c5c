package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// roleVariable makes the test binary play a part instead of running tests.
const roleVariable = "ANYEDGE_DAEMON_TEST_ROLE"

// roles are the processes the tests fork. Each says "ready" on standard output
// once it can be tried.
var roles = map[string]func() int{
	// echo answers every line of its input and ends with it.
	"echo": func() int {
		fmt.Println("ready")
		io.Copy(os.Stdout, os.Stdin)
		return 0
	},
	// obedient ends with status 7 on SIGTERM.
	"obedient": func() int {
		ctx, stop := Terminate(context.Background())
		defer stop()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println(context.Cause(ctx))
		return 7
	},
	// stubborn takes note of SIGTERM and goes on.
	"stubborn": func() int {
		terms := make(chan os.Signal, 1)
		signal.Notify(terms, syscall.SIGTERM)
		fmt.Println("ready")
		for s := range terms {
			fmt.Println(s)
		}
		return 0
	},
	// slow begins its orderly end at the first signal and never finishes it.
	"slow": func() int {
		ctx, _ := Terminate(context.Background())
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println(context.Cause(ctx))
		select {}
	},
	// hangups says so for every SIGHUP, then gives it back its usual effect.
	"hangups": func() int {
		hangups, stop := Hangups()
		fmt.Println("ready")
		<-hangups
		stop()
		fmt.Println("reload")
		time.Sleep(time.Minute)
		return 0
	},
	// parent starts a child that never ends by itself and prints its pid.
	"parent": func() int {
		child, err := Start(command("stubborn"))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("pid", child.Pid())
		child.Wait()
		return 1
	},
	// descriptor prints what it reads from its first extra file.
	"descriptor": func() int {
		data, err := io.ReadAll(os.NewFile(3, "extra"))
		fmt.Printf("ready %s %v\n", data, err)
		return 0
	},
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(roles[role]())
	}
	os.Exit(m.Run())
}

// command runs the test binary in a role, on the standard streams of this
// process.
func command(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// output is the standard output of a child and whatever it starts. Its end is
// the end of all of them.
type output struct {
	t     *testing.T
	lines *bufio.Scanner
}

// capture gives the command's standard output to the test.
func capture(t *testing.T, cmd *exec.Cmd) *output {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	r.SetReadDeadline(time.Now().Add(20 * time.Second)) // a hang fails the test
	cmd.Stdout = w
	return &output{t, bufio.NewScanner(r)}
}

// started closes this process's copy of the writing end.
func started(cmd *exec.Cmd) { cmd.Stdout.(*os.File).Close() }

// line waits for the next line.
func (o *output) line() string {
	o.t.Helper()
	if !o.lines.Scan() {
		o.t.Fatalf("output ended early: %v", o.lines.Err())
	}
	return o.lines.Text()
}

// expect waits for the next line and wants it to be this one.
func (o *output) expect(want string) {
	o.t.Helper()
	if got := o.line(); got != want {
		o.t.Fatalf("the child said %q, want %q", got, want)
	}
}

// ended waits until every writer is gone.
func (o *output) ended() {
	o.t.Helper()
	if o.lines.Scan() {
		o.t.Fatalf("the child said %q, want its end", o.lines.Text())
	}
	if err := o.lines.Err(); err != nil {
		o.t.Fatalf("the child did not end: %v", err)
	}
}

// launch starts a role as a Child and waits until it is ready.
func launch(t *testing.T, role string) (*Child, *output) {
	t.Helper()
	cmd := command(role)
	out := capture(t, cmd)
	child, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	started(cmd)
	t.Cleanup(func() {
		child.Signal(syscall.SIGKILL)
		child.Wait()
	})
	out.expect("ready")
	return child, out
}

// pidOf parses "pid N".
func pidOf(t *testing.T, line string) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimPrefix(line, "pid "))
	if err != nil {
		t.Fatalf("%q is no pid", line)
	}
	return pid
}
