package toolchain_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// fromCaller is in the values of all variables of the caller's.
const fromCaller = "from-the-caller"

// callersEnvironment sets what a caller may have set, and what would change the outcome or
// reach the network.
func callersEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"GOFLAGS", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOSUMCHECK", "GOPRIVATE", "GOENV", "GOROOT", "GOPATH", "GOCACHE", "GOMODCACHE", "GOTMPDIR",
		"GOOS", "GOARCH", "GOAMD64", "GOARM", "GOARM64", "GO386", "GOMIPS", "GOPPC64", "GORISCV64", "GOWASM",
		"GOEXPERIMENT", "GODEBUG", "GOTOOLCHAIN", "GOWORK", "GO111MODULE", "GOFIPS140", "GOVCS", "GOCACHEPROG", "GOAUTH", "GOCOVERDIR", "GOGC", "GOMEMLIMIT", "GOMAXPROCS",
		"CGO_ENABLED", "CGO_CFLAGS", "CC", "CXX", "AR", "HOME", "USER", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PATH", "TMPDIR", "LANG", "TZ",
		"LD_PRELOAD", "LD_LIBRARY_PATH", "SOURCE_DATE_EPOCH", "TS_AUTHKEY", "GITHUB_TOKEN",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
	} {
		t.Setenv(name, fromCaller)
	}
}

// TestEnvironment guards against a variable of the caller's that reaches the compiler, and
// against one that decides about the outcome and is left to a default.
func TestEnvironment(t *testing.T) {
	w := newWorld(t)
	tool := w.installed()
	callersEnvironment(t)
	level := map[string]string{"amd64": "GOAMD64", "386": "GO386", "arm": "GOARM", "arm64": "GOARM64", "ppc64le": "GOPPC64", "riscv64": "GORISCV64"}
	l, err := lock.Read("../../versions.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Inputs.Platforms {
		work := folder(t, map[string]string{makesFile: "bin/derper"})
		args := plan.InstallArgs(w.Inputs, w.Inputs.Programs...)
		if _, err := tool.Source(w.Inputs.Sources()[0]).Install(t.Context(), plan.Settings(p), args, work, nil); err != nil {
			t.Fatal(err)
		}
		got := calls(t, work)[0]
		for _, e := range got.Env {
			if strings.Contains(e, fromCaller) {
				t.Errorf("%s: inherited %s", p, e)
			}
		}
		want := map[string]string{
			"GOOS": p.OS(), "GOARCH": p.Arch(), "CGO_ENABLED": "0", "GOFLAGS": "", "GOENV": "off", "GOTOOLCHAIN": "local", "GOEXPERIMENT": "",
			"GOROOT": tool.Root(), "PATH": filepath.Join(tool.Root(), "bin"), "GOPATH": work, "TMPDIR": work,
			"GOMODCACHE": filepath.Join(w.dir, "mod"), "GOCACHE": filepath.Join(w.dir, "go-build"),
			"GOPROXY": "file://" + filepath.Join(w.dir, "mod", "cache", "download"), "GOSUMDB": "off", "GOVCS": "*:off", "GOPRIVATE": "",
		}
		for name, value := range want {
			if v, ok := got.value(name); !ok || v != value {
				t.Errorf("%s: %s is %q, %v; want %q", p, name, v, ok, value)
			}
		}
		if name := level[p.Arch()]; name != "" {
			if v, _ := got.value(name); v == "" {
				t.Errorf("%s: %s is not set", p, name)
			}
		}
		if v, ok := got.value("HOME"); ok {
			t.Errorf("%s: HOME is %q", p, v)
		}
		if got.Dir != work || got.Args[0] != "install" || got.Args[1] != "-v" || !slices.Equal(got.Args[2:], args[2:]) {
			t.Errorf("%s: ran %q in %s", p, got.Args, got.Dir)
		}
	}
}

// TestFetchEnvironment guards against a fetch that does not reach the network where a
// proxy is needed, and against one that skips the checksum database because the caller
// does.
func TestFetchEnvironment(t *testing.T) {
	w := newWorld(t)
	tool := w.installed()
	// Without proxies: this program fetches too, from this machine.
	callersEnvironment(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.example.com")
	work := folder(t, map[string]string{saysFile: "tailscale.com/cmd/derper@v1.102.3: no such thing\n"})
	_, err := tool.Source(w.Inputs.Sources()[0]).Fetch(t.Context(), plan.Settings("linux/arm64"), plan.InstallArgs(w.Inputs, w.Inputs.Programs...), work, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "fetch tailscale.com@v1.102.3: go install: exit status 1") || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("%v", err)
	}
	list := calls(t, work)
	if len(list) != 2 {
		t.Fatalf("%d calls: %v", len(list), list)
	}
	for i, want := range []map[string]string{
		{"GOSUMDB": "off", "HTTPS_PROXY": ""},
		{"GOSUMDB": w.SumDB, "GOPROXY": w.Proxy, "HTTPS_PROXY": "http://proxy.example.com", "NO_PROXY": fromCaller, "GONOSUMDB": "", "GOPRIVATE": "", "GOINSECURE": "", "GOFLAGS": ""},
	} {
		for name, value := range want {
			if v, _ := list[i].value(name); v != value {
				t.Errorf("call %d: %s is %q, want %q", i, name, v, value)
			}
		}
		if !slices.Contains(list[i].Args, "-n") {
			t.Errorf("call %d compiles: %q", i, list[i].Args)
		}
	}
}

// TestCompileError guards against an error that hides what the compiler said, drowns it in
// progress, or does not tell a full disk.
func TestCompileError(t *testing.T) {
	w := newWorld(t)
	source := w.installed().Source(w.Inputs.Sources()[0])
	args := plan.InstallArgs(w.Inputs, w.Inputs.Programs...)
	many := strings.Repeat("an earlier line\n", 30)
	for _, test := range []struct {
		name, says string
		want       string // what the error ends in
		not        string
		full       bool
	}{
		{name: "one line", says: "cmd/derper/main.go:3:1: undefined: x\n", want: "go install: exit status 1\n\tcmd/derper/main.go:3:1: undefined: x"},
		{name: "progress", says: "tailscale.com/version\n# tailscale.com/cmd/derper\nmain.go:3: bad\nexample.com/dep\n", want: "exit status 1\n\t# tailscale.com/cmd/derper\n\tmain.go:3: bad", not: "example.com/dep"},
		{name: "the last of many", says: many + "main.go:3: bad\n", want: "exit status 1" + strings.Repeat("\n\tan earlier line", 19) + "\n\tmain.go:3: bad"},
		{name: "no end of line", says: "fatal error: killed", want: "exit status 1\n\tfatal error: killed"},
		{name: "full disk", says: "link: write /tmp/a.out: no space left on device\n", want: "no space left on device", full: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var lines []string
			_, err := source.Install(t.Context(), plan.Settings("linux/arm64"), args, folder(t, map[string]string{saysFile: test.says}), func(line string) { lines = append(lines, line) })
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.HasSuffix(err.Error(), test.want) || test.not != "" && strings.Contains(err.Error(), test.not) {
				t.Errorf("%q\nshould end in\n%q", err, test.want)
			}
			if errors.Is(err, syscall.ENOSPC) != test.full {
				t.Errorf("a full disk: %v, want %v", !test.full, test.full)
			}
			if got := strings.Join(lines, "\n"); got != strings.TrimSpace(test.says) {
				t.Errorf("handed on: %q", got)
			}
		})
	}
}

// TestInstallPrograms guards against a program that is not found: the go command has one
// for the host in bin and one for another platform below it.
func TestInstallPrograms(t *testing.T) {
	w := newWorld(t)
	work := folder(t, map[string]string{makesFile: "bin/derper bin/linux_arm64/tailscaled"})
	got, err := w.installed().Source(w.Inputs.Sources()[0]).Install(t.Context(), nil, []string{"go", "install"}, work, nil)
	want := map[string]string{"derper": filepath.Join(work, "bin/derper"), "tailscaled": filepath.Join(work, "bin/linux_arm64/tailscaled")}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := w.installed().Source(w.Inputs.Sources()[0]).Install(t.Context(), nil, []string{"go", "install"}, folder(t, nil), nil); err == nil {
		t.Error("a command that made nothing is no error")
	}
}

// TestBuild guards against a build in another folder than that of the source, and against
// a source that is changed in place.
func TestBuild(t *testing.T) {
	w := newWorld(t)
	work := folder(t, nil)
	source := fstest.MapFS{"main.go": {Data: []byte("package main\n")}, "sub/sub.go": {Data: []byte("package sub\n")}}
	program, err := w.installed().Build(t.Context(), plan.Settings("linux/arm64"), []string{"go", "build", "-trimpath", "."}, source, "module m\n", work)
	if err != nil {
		t.Fatal(err)
	}
	got := calls(t, work)[0]
	if want := []string{"build", "-o", program, "-trimpath", "."}; !slices.Equal(got.Args, want) {
		t.Errorf("ran %q, want %q", got.Args, want)
	}
	if v, _ := got.value("GOPROXY"); !strings.HasPrefix(v, "file://") {
		t.Errorf("it may fetch: GOPROXY is %q", v)
	}
	for name, want := range map[string]string{"go.mod": "module m\n", "main.go": "package main\n", "sub/sub.go": "package sub\n"} {
		if data, err := os.ReadFile(filepath.Join(got.Dir, name)); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

// TestRun guards against a program of ours that sees the caller's environment.
func TestRun(t *testing.T) {
	w := newWorld(t)
	program := filepath.Join(w.installed().Root(), "bin", "go")
	callersEnvironment(t)
	work := folder(t, nil)
	if err := toolchain.Run(t.Context(), program, work, "one", "two words"); err != nil {
		t.Fatal(err)
	}
	got := calls(t, work)[0]
	if len(got.Env) > 0 || got.Dir != work || !slices.Equal(got.Args, []string{"one", "two words"}) {
		t.Errorf("%+v", got)
	}
	err := toolchain.Run(t.Context(), program, folder(t, map[string]string{saysFile: "it said why\n"}))
	if err == nil || err.Error() != "go: exit status 1\n\tit said why" {
		t.Errorf("%v", err)
	}
}

// TestCancelled guards against compilers that go on when a build is interrupted: the
// command's whole group is killed, and the error is why.
func TestCancelled(t *testing.T) {
	w := newWorld(t)
	source := w.installed().Source(w.Inputs.Sources()[0])
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	work := folder(t, map[string]string{hangFile: listener.Addr().String()})
	go func() {
		_, err := source.Install(ctx, nil, []string{"go", "install"}, work, nil)
		done <- err
	}()
	var alive []net.Conn
	for range 2 { // the command and its child
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		alive = append(alive, conn)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("%v, not %v", err, context.Canceled)
	}
	for _, conn := range alive {
		// Each holds its connection as long as it lives, or until the test fails.
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// TestSource guards against sources that are not those that the lock names, and against an
// error that does not say which. The toolchain is the real one.
func TestSource(t *testing.T) {
	r := releasetest.New(t, "../..")
	dir := filepath.Join(t.TempDir(), "a, b|c%2C") // GOPROXY is a list of URLs
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	releasetest.ShareInto(t, dir)
	t.Cleanup(func() { cache.RemoveAll(dir) })
	tool, err := toolchain.Install(t.Context(), newClient(t, r, dir), r.Inputs.Go, pipeline.Host, dir, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	env, args := plan.Settings("linux/arm64"), plan.InstallArgs(r.Inputs, r.Inputs.Programs...)
	// A source remembers what it has verified, so each has to be new.
	fetch := func(of lock.Source) (*toolchain.Source, int, error) {
		s := tool.Source(of)
		n, err := s.Fetch(t.Context(), env, args, t.TempDir(), nil)
		return s, n, err
	}
	sumError := func(err error, m string) {
		t.Helper()
		var e *modproxy.SumError
		if !errors.As(err, &e) || e.Module.String() != m {
			t.Errorf("%v, not a SumError of %s", err, m)
		}
	}

	release := r.Inputs.Sources()[0]
	wrong := release
	wrong.Sum = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	_, _, err = fetch(wrong)
	sumError(err, "tailscale.com@v1.102.3")
	if list := files(t, dir, "mod"); slices.ContainsFunc(list, func(name string) bool { return strings.HasSuffix(name, ".go") }) {
		t.Errorf("there is of it: %q", list)
	}

	r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		missing := strings.HasPrefix(req.URL.Path, "/example.com/dep/@v/")
		if missing {
			http.NotFound(w, req)
		}
		return missing
	})
	if _, _, err := fetch(release); err == nil || !strings.Contains(err.Error(), "fetch tailscale.com@v1.102.3: go install: ") || !strings.Contains(err.Error(), "example.com/dep@v1.0.0") {
		t.Errorf("a module that no proxy has: %v", err)
	}
	r.Intercept(nil)

	source, n, err := fetch(release)
	if err != nil {
		t.Fatal(err)
	}
	next := module.Version{Path: lock.TailscaleModule, Version: "v1.102.4"}
	nextRelease := r.Inputs
	nextRelease.Tailscale.Version = next.Version
	nextRelease.Tailscale.Sum = strings.Fields(r.Add(t, next, "module tailscale.com\n\ngo 1.24\n", map[string]string{"go.sum": "", "cmd/derper/main.go": "package main\n\nfunc main() {}\n"}))[2]
	other := tool.Source(nextRelease.Sources()[0])
	if _, err := other.Fetch(t.Context(), env, plan.InstallArgs(nextRelease, r.Inputs.Programs[0]), t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}

	r.Close() // nothing is missing any more
	if again, err := source.Fetch(t.Context(), env, args, t.TempDir(), nil); again != n || err != nil {
		t.Errorf("the second time: %d packages, %v", again, err)
	}
	work := t.TempDir()
	programs, err := source.Install(t.Context(), env, args, work, nil)
	if err != nil {
		t.Fatal(err)
	}
	linked, err := source.Linked(programs["derper"])
	var names []string
	for _, m := range linked {
		names = append(names, m.String())
	}
	if want := []string{"tailscale.com@v1.102.3", "example.com/dep@v1.0.0"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("linked: %q, %v; want %q", names, err, want)
	}
	_, err = other.Linked(programs["derper"])
	sumError(err, "tailscale.com@v1.102.3") // of another release
	// A program that somebody compiled from a folder says no sum, and there is none for it.
	folder, alone := t.TempDir(), filepath.Join(work, "alone")
	for name, content := range map[string]string{"go.mod": "module tailscale.com\n\ngo 1.24\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-C", folder, "-buildvcs=false", "-o", alone).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, err = source.Linked(alone)
	sumError(err, "tailscale.com@(devel)")
	slices.Reverse(linked) // the release last: nothing of it can be fetched again
	for _, m := range linked {
		tree, err := source.Tree(m)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(tree, "LICENSE")
		data, err := os.ReadFile(name)
		if err := cmp.Or(err, os.Chmod(name, 0o644), os.WriteFile(name, append(data, "and more\n"...), 0o644)); err != nil {
			t.Fatal(err)
		}
		_, _, err = fetch(release)
		sumError(err, m.String())
		if _, err := os.Stat(tree); err == nil {
			t.Errorf("%s: what is damaged is left", m)
		}
	}
}
