package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// leakChecked runs the tests and then looks for goroutines they left behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"celler": main, "code": printCode})
}

// printCode runs its arguments as a command and prints its exit code: testscript
// itself only tells failure from success.
func printCode() {
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		fmt.Printf("exit %d\n", exit.ExitCode())
		return
	}
	if err != nil {
		panic(err)
	}
	fmt.Println("exit 0")
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Values[serversKey{}] = map[string]*server{}
			env.Setenv("HOME", env.Getenv("WORK")+"/home")
			return os.Mkdir(env.Getenv("WORK")+"/home", 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":    startServer,
			"shutdown": stopServer,
		},
	})
}

// server is a celler that a script started.
type server struct {
	cmd *exec.Cmd
	log chan struct{} // closed when its standard error has ended
}

// startServer runs "serve NAME [args]": it starts celler serve on a free port of the
// loopback, waits until it says that it is ready, sets $NAME to its address and writes its
// standard output to NAME.out and its standard error to NAME.err.
func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: serve NAME [args]")
	}
	name := args[0]
	path, err := exec.LookPath("celler")
	ts.Check(err)
	c := exec.Command(path, append([]string{"serve", "--listen=127.0.0.1:0"}, args[1:]...)...) // stopped by stopServer
	c.Dir = ts.MkAbs(".")
	for _, variable := range []string{"HOME", "PATH", "TMPDIR", "XDG_CONFIG_HOME", "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64", "CELLER_SERVER_TOKEN_HS256_SECRET_BASE64"} {
		if value := ts.Getenv(variable); value != "" {
			c.Env = append(c.Env, variable+"="+value)
		}
	}
	out, err := os.Create(ts.MkAbs(name + ".out"))
	ts.Check(err)
	defer func() { _ = out.Close() }()
	errs, err := os.Create(ts.MkAbs(name + ".err"))
	ts.Check(err)
	c.Stdout = out
	log, err := c.StderrPipe()
	ts.Check(err)
	ts.Check(c.Start())

	ready := make(chan string)
	s := &server{c, make(chan struct{})}
	go func() {
		defer close(s.log)
		defer close(ready)
		defer func() { _ = errs.Close() }()
		address := regexp.MustCompile(`msg=ready addr=(\S+)`)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			_, _ = fmt.Fprintln(errs, lines.Text())
			if m := address.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
	}()
	servers(ts)[name] = s
	ts.Defer(func() { _ = s.end() })
	addr, ok := <-ready
	if !ok {
		_ = s.end()
		ts.Fatalf("%s did not become ready:\n%s", name, ts.ReadFile(name+".err"))
	}
	ts.Setenv(name, addr)
}

// stopServer runs "shutdown NAME": it asks the server to stop and wants it to end well.
func stopServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || servers(ts)[args[0]] == nil {
		ts.Fatalf("usage: shutdown NAME, of a server that was started")
	}
	err := servers(ts)[args[0]].end()
	delete(servers(ts), args[0])
	ts.Check(err)
}

func (s *server) end() error {
	if s.cmd.ProcessState != nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.log
	return s.cmd.Wait()
}

// servers are those of one script, kept where testscript keeps such things.
func servers(ts *testscript.TestScript) map[string]*server {
	m, ok := ts.Value(serversKey{}).(map[string]*server)
	if !ok {
		ts.Fatalf("no servers in the environment")
	}
	return m
}

type serversKey struct{}
