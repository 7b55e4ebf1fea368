package toolchain

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A command is one run of the toolchain's go.
type command struct {
	args []string // begins with "go"
	env  []string // what decides about the outcome, see plan.Settings
	dir  string   // where it runs; "" is the work folder
	work string   // a folder of its own: GOPATH, temporary files
	net  bool     // may fetch modules
	line func(string)
}

// places is the part of the environment that says where things are. With it and the
// limits of the machine, a command's environment is complete: nothing is inherited, but
// for what a fetch needs to reach the network.
func (t *Toolchain) places(c command) []string {
	env := []string{
		"PATH=" + filepath.Join(t.root, "bin"),
		"GOROOT=" + t.root,
		// No HOME: in a new one, the go command would start a telemetry process
		// that outlives it.
		"TMPDIR=" + c.work,
		"GOPATH=" + c.work,
		"GOMODCACHE=" + t.modCache(),
		"GOCACHE=" + filepath.Join(t.dir, "go-build"),
		// No index of what is in a module: it is kept by the module's name, and
		// believed when what it was made of was damaged, and has been replaced.
		"GODEBUG=goindex=0",
		// Nothing is private or excused from the checksum database, and no
		// version control system is ever asked.
		"GOPRIVATE=", "GONOPROXY=", "GONOSUMDB=", "GOINSECURE=", "GOVCS=*:off",
	}
	if !c.net {
		return append(env,
			// GOPROXY=off would refuse pkg@version: the go command asks the
			// proxy whether the module is deprecated.
			"GOPROXY="+fileURL(filepath.Join(t.modCache(), "cache", "download")),
			// What is in the module cache was verified when it was fetched, and
			// is again, against go.sum, before each compile.
			"GOSUMDB=off",
		)
	}
	env = append(env, "GOSUMDB="+cmp.Or(t.client.SumDB, "sum.golang.org"), "GOPROXY="+t.client.Proxies)
	return append(env, network()...)
}

// network is what this program's environment says of the way to the network.
func network() (env []string) {
	for _, name := range []string{
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR",
	} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// fileURL is a folder as GOPROXY takes it, where a comma or a bar ends a URL.
func fileURL(dir string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}
	return strings.NewReplacer(",", "%2C", "|", "%7C").Replace(u.String())
}

func (t *Toolchain) modCache() string { return filepath.Join(t.dir, "mod") }

// run runs a command to its end. Lines that it prints go to c.line; the error
// has the last ones.
func (t *Toolchain) run(ctx context.Context, c command) error {
	cmd := exec.CommandContext(ctx, filepath.Join(t.root, "bin", "go"), c.args[1:]...)
	cmd.Dir = cmp.Or(c.dir, c.work)
	cmd.Env = slices.Concat(c.env, t.places(c), ThisMachine().env())
	return wait(ctx, cmd, strings.Join(c.args[:2], " "), c.line)
}

// wait runs cmd in a process group of its own, so that compilers end with it. Its standard
// output is handed on as lines, too, unless it goes elsewhere.
func wait(ctx context.Context, cmd *exec.Cmd, name string, line func(string)) error {
	// The command dies with the thread that starts it, so that one must not end before:
	// go.dev/issue/27505.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	r, w := io.Pipe()
	cmd.Stderr = w
	if cmd.Stdout == nil {
		cmd.Stdout = w
	}
	said := make(chan []string)
	go func() { said <- scan(r, line) }()
	err := cmd.Run()
	w.Close()
	tail := <-said
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		text := strings.Join(tail, "\n\t")
		if strings.Contains(text, syscall.ENOSPC.Error()) {
			// Said by a compiler or a linker, and as much a full disk as one of ours.
			err = fmt.Errorf("%w: %w", err, syscall.ENOSPC)
		}
		return fmt.Errorf("%s: %w\n\t%s", name, err, text)
	}
	return nil
}

// scan hands lines on and keeps the last of those that are not mere progress.
func scan(r io.Reader, line func(string)) (tail []string) {
	in := bufio.NewReader(r)
	for {
		text, err := in.ReadBytes('\n')
		if text := string(bytes.TrimRight(text, "\n")); text != "" {
			if line != nil {
				line(text)
			}
			// A line of one word is a package path of -v.
			if strings.Contains(text, " ") {
				tail = append(tail[max(0, len(tail)-19):], text)
			}
		}
		if err != nil {
			return tail
		}
	}
}
