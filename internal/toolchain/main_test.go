package toolchain_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// TestMain makes the test program its own fake of the go command: a toolchain's bin/go is
// a script whose interpreter is the test program. The environment cannot tell it so, as a
// command of the toolchain inherits none.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && filepath.Base(os.Args[1]) == "go" {
		// Not by os.Exit, which speaks of coverage when the test program measures it.
		if err := fakeGo(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(2)
		}
		syscall.Exit(0)
	}
	os.Exit(m.Run())
}

// A call is how the fake go was called.
type call struct {
	Args []string
	Env  []string
	Dir  string
}

// value is the value of a variable.
func (c call) value(name string) (value string, ok bool) {
	for _, e := range c.Env {
		if v, is := strings.CutPrefix(e, name+"="); is {
			value, ok = v, true
		}
	}
	return value, ok
}

// Files in the folder of a command that say what the fake go does, and what it has done.
const (
	saysFile  = "says"  // it prints this and fails
	hangFile  = "hang"  // it connects to this address, as does a child of it, and hangs
	makesFile = "makes" // it makes these files
	callsFile = "calls" // it adds the call
)

// fakeGo does what the files in the folder of the command say.
func fakeGo(args []string) error {
	dir := os.Getenv("GOPATH")
	if dir == "" { // not a command of the toolchain, but a program that it has made
		dir = "."
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	line, err := json.Marshal(call{args, os.Environ(), wd})
	if err != nil {
		return err
	}
	calls, err := os.OpenFile(filepath.Join(dir, callsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintf(calls, "%s\n", line)
	if err := calls.Close(); err != nil {
		return err
	}
	if names, err := os.ReadFile(filepath.Join(dir, makesFile)); err == nil {
		for _, name := range strings.Fields(string(names)) {
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(name, []byte(name), 0o755); err != nil {
				return err
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, saysFile)); err == nil {
		os.Stdout.Write(text)
		syscall.Exit(1)
	}
	if address, err := os.ReadFile(filepath.Join(dir, hangFile)); err == nil {
		if !slices.Contains(args, "child") {
			child := exec.Command(os.Args[0], os.Args[1], "child")
			child.Stdout, child.Stderr = os.Stdout, os.Stderr
			if err := child.Start(); err != nil {
				return err
			}
		}
		conn, err := net.Dial("tcp", string(address))
		if err != nil {
			return err
		}
		io.Copy(io.Discard, conn) // until it is killed
	}
	return nil
}

// A world is a release with a fake toolchain.
type world struct {
	*releasetest.Release
	*testing.T
	dir    string // of the toolchain
	client *modproxy.Client
	tool   lock.Go
	warned []string
}

// fakeVersion is the version of the fake toolchain.
const fakeVersion = "go1.99.0"

func newWorld(t *testing.T) *world {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Release: releasetest.New(t, "../.."), T: t, dir: t.TempDir()}
	w.client = newClient(t, w.Release, w.dir)
	m := lock.Go{Version: fakeVersion}.Module(pipeline.Host)
	sums := w.Add(t, m, "module "+m.Path+"\n", map[string]string{
		"bin/go":                  "#!" + program + "\n",
		"pkg/tool/host/compile":   "a compiler\n",
		"src/a.go":                "package a\n",
		"src/cmd/_go.mod":         "module cmd\n",
		"src/cmd/vendor/other.go": "package other\n",
	})
	w.tool = lock.Go{Version: fakeVersion, Sums: map[string]string{pipeline.Host: strings.Fields(sums)[2]}}
	return w
}

func newClient(t *testing.T, r *releasetest.Release, dir string) *modproxy.Client {
	t.Helper()
	c := &modproxy.Client{Proxies: r.Proxy, SumDB: r.SumDB, Dir: filepath.Join(dir, "sumdb"), Temp: filepath.Join(dir, "tmp")}
	if err := os.MkdirAll(c.Temp, 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// install installs the fake toolchain.
func (w *world) install() (*toolchain.Toolchain, error) {
	return toolchain.Install(w.Context(), w.client, w.tool, pipeline.Host, w.dir, nil, func(format string, args ...any) {
		w.warned = append(w.warned, fmt.Sprintf(format, args...))
	})
}

// installed is the fake toolchain.
func (w *world) installed() *toolchain.Toolchain {
	w.Helper()
	tool, err := w.install()
	if err != nil {
		w.Fatal(err)
	}
	return tool
}

// folder is one for a command, with files that say what the fake go does.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// calls are those of the fake go for the commands of a folder.
func calls(t *testing.T, dir string) (list []call) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, callsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(f); ; {
		var c call
		if err := d.Decode(&c); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
}
