package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

const (
	newRoots = "v0.0.0-20261120000000-0123456789ab"
	oldRoots = "v0.0.0-20250101000000-0123456789ab"
)

func TestNewStable(t *testing.T) {
	w := newWorld(t)
	w.next("v1.103.7", nil)
	w.next("v1.104.0", nil)
	w.next("v1.104.1", nil)
	next := w.Head(t)
	w.next("v1.105.0-pre", nil)
	w.next("v1.106.0-rc.1", nil)
	w.Tag(t, "v1.999.0-not.a.release+x") // and other tags that are none
	w.Tag(t, "v2.0.0")
	w.Tag(t, "1.200.0")
	w.addRoots(newRoots)
	w.AddToolchain("go1.26.9", lock.Hosts...)
	w.AddToolchain("go1.27.0", lock.Hosts...)

	u := w.update(Wish{Channel: lock.Stable})
	in := u.New
	if want := next.String(); in.Tailscale.Version != "v1.104.1" || in.Tailscale.Commit != want {
		t.Errorf("release is %+v, want v1.104.1 at %s", in.Tailscale, want)
	}
	if in.Go.Version != "go1.26.9" || len(in.Go.Sums) != len(lock.Hosts) {
		t.Errorf("Go is %+v", in.Go)
	}
	if in.Roots.Version != newRoots {
		t.Errorf("roots are %+v", in.Roots)
	}
	if !slices.Equal(in.Platforms, w.Inputs.Platforms) || in.Format != lock.Format {
		t.Errorf("platforms are %v, format is %d", in.Platforms, in.Format)
	}
	if _, err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: in}).Bytes(); err != nil {
		t.Errorf("the inputs make no lock: %v", err)
	}
	if err := w.source.Prove(t.Context(), in.Tailscale); err != nil {
		t.Error(err)
	}
	if !u.IsNew() || !reflect.DeepEqual(u.Old, w.Inputs) || len(u.Changes()) != 4 {
		t.Errorf("new %v: %+v", u.IsNew(), u.Changes())
	}
	w.warned()
	// Once it is in the lock, there is nothing new.
	w.Inputs = in
	if u := w.update(Wish{Channel: lock.Stable}); u.IsNew() || u.Pending != nil {
		t.Errorf("again: %+v", u.Changes())
	}
}

func TestNewUnstable(t *testing.T) {
	w := newWorld(t)
	w.next("v1.103.0-pre", nil)
	w.next("v1.104.0", nil)
	for _, version := range []string{"v1.103.7", "v1.105.0-pre", "v1.106.0-rc.1"} {
		w.next(version, nil)
		if u := w.update(Wish{Channel: lock.Unstable}); u.New.Tailscale.Version != version {
			t.Errorf("the newest unstable is %s, want %s", u.New.Tailscale.Version, version)
		}
	}
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Version != "v1.104.0" {
		t.Errorf("the newest stable is %s", u.New.Tailscale.Version)
	}
}

// A newer patch of Go is a revision, and takes newer roots along; newer roots alone are one
// when those of the lock are old, and wait until then. Who asks for the release by name gets
// them. Nothing becomes older.
func TestRevision(t *testing.T) {
	w := newWorld(t)
	have := w.Inputs
	made, err := module.PseudoVersionTime(have.Roots.Version)
	if err != nil {
		t.Fatal(err)
	}
	young, old := made.Add(29*24*time.Hour), made.Add(30*24*time.Hour)
	golang, roots := Change{"go", have.Go.Version, "go1.26.9"}, Change{"roots", have.Roots.Version, newRoots}
	expect := func(what string, now time.Time, changes, pending []Change) {
		t.Helper()
		w.source.Now = now
		u := w.update(Wish{Channel: lock.Stable})
		if !slices.Equal(u.Changes(), changes) || !slices.Equal(u.Pending, pending) || u.IsNew() != (changes != nil) {
			t.Errorf("%s: changes %+v, pending %+v", what, u.Changes(), u.Pending)
		}
	}
	expect("nothing", old, nil, nil)
	w.addRoots(oldRoots)
	w.AddToolchain("go1.26.7", lock.Hosts...)
	w.AddToolchain("go1.27.1", lock.Hosts...)
	expect("older ones", old, nil, nil)
	w.addRoots(newRoots)
	expect("newer roots", young, nil, []Change{roots})
	expect("newer roots, and old ones", old, []Change{roots}, nil)
	w.AddToolchain("go1.26.9", lock.Hosts...)
	expect("a newer Go", young, []Change{golang, roots}, nil)

	w.source.Now = young
	w.Inputs.Go.Version = "go1.26.9"
	if u := w.update(Wish{Channel: lock.Stable, Version: w.Inputs.Tailscale.Version}); !slices.Equal(u.Changes(), []Change{roots}) {
		t.Errorf("by name: %+v", u.Changes())
	}
	// Not even where upstream goes back to an older Go.
	w.Inputs.Go.Version = "go1.28.1"
	expect("a Go of another minor version", young, nil, []Change{roots})
}

func TestRetracted(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.next("v1.104.1", nil)
	// A release that retracts others, and itself.
	w.next("v1.104.2", map[string]string{"go.mod": releasetest.GoMod + "\nretract [v1.104.1, v1.104.2] // by accident\n"})
	// A pre-release does not decide when there are releases.
	w.next("v1.105.0-pre", map[string]string{"go.mod": releasetest.GoMod + "\nretract v1.104.0\n"})
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Version != "v1.104.0" {
		t.Errorf("%s was chosen", u.New.Tailscale.Version)
	}
	w.warned()
	if u := w.update(Wish{Channel: lock.Stable, Version: "v1.104.1"}); u.New.Tailscale.Version != "v1.104.1" {
		t.Errorf("%s was chosen", u.New.Tailscale.Version)
	}
	w.warned("v1.104.1: upstream has retracted it")
	// The lock's own release is retracted, and there is none newer.
	w.Inputs = w.update(Wish{Channel: lock.Stable, Version: "v1.104.1"}).New
	var downgrade *DowngradeError
	if err := w.refused(Wish{Channel: lock.Stable}, "v1.104.0", "v1.104.1, which upstream has retracted"); !errors.As(err, &downgrade) || !downgrade.Retracted {
		t.Errorf("%#v", err)
	}
}

func TestDowngrade(t *testing.T) {
	w := newWorld(t)
	first := w.Inputs
	w.next("v1.105.0-pre", nil)
	w.Inputs = w.update(Wish{Channel: lock.Unstable}).New
	var downgrade *DowngradeError
	if err := w.refused(Wish{Channel: lock.Stable}); !errors.As(err, &downgrade) ||
		*downgrade != (DowngradeError{Locked: "v1.105.0-pre", Newest: first.Tailscale.Version, Channel: lock.Stable}) {
		t.Errorf("%v", err)
	}
	for _, wish := range []Wish{{Channel: lock.Stable, Downgrade: true}, {Channel: lock.Stable, Version: first.Tailscale.Version}} {
		if u := w.update(wish); u.New.Tailscale != first.Tailscale {
			t.Errorf("%+v: %+v", wish, u.New.Tailscale)
		}
	}
}

// A proxy that does not give one version away keeps the lock where it is.
func TestProxyRefusesOneVersion(t *testing.T) {
	for _, file := range []string{"v1.104.0.info", "v1.104.0.mod"} {
		for _, status := range []int{http.StatusForbidden, http.StatusNotFound} {
			w := newWorld(t)
			w.next("v1.104.0", nil)
			w.answer("/tailscale.com/@v/"+file, status, "no")
			var missing *MissingError
			err := w.refused(Wish{Channel: lock.Stable}, "v1.104.0", "git repository has it, module proxy does not", file, fmt.Sprint(status))
			if !errors.As(err, &missing) {
				t.Errorf("%s, %d: %#v", file, status, err)
			}
		}
	}
}

// A release whose modules cannot be had is not taken: the lock would be of something that
// nobody can build.
func TestUnservedModules(t *testing.T) {
	w := newWorld(t)
	goMod := releasetest.GoMod + "\nrequire (\n\texample.com/dep v1.0.0\n\texample.com/gone v1.2.3 // indirect\n)\n"
	w.next("v1.104.0", map[string]string{"go.mod": goMod})
	var unserved *UnservedError
	err := w.refused(Wish{Channel: lock.Stable}, "v1.104.0 cannot be built", "of the 2 modules", "does not serve example.com/gone@v1.2.3:", "404")
	if !errors.As(err, &unserved) || len(unserved.Modules) != 1 {
		t.Errorf("%#v", err)
	}
	w.Add(t, module.Version{Path: "example.com/gone", Version: "v1.2.3"}, "module example.com/gone\n", nil)
	w.answer("/example.com/dep/@v/v1.0.0.zip", http.StatusForbidden, "no")
	w.refused(Wish{Channel: lock.Stable}, "example.com/dep@v1.0.0", "403")
	w.answer("/nothing", 0, "")
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Version != "v1.104.0" {
		t.Errorf("%s was chosen", u.New.Tailscale.Version)
	}
}

// The proxy's list is hours behind: what it does not list, it is asked for.
func TestNotListedYet(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.answer("/tailscale.com/@v/list", http.StatusOK, w.Inputs.Tailscale.Version+"\n")
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Version != "v1.104.0" {
		t.Errorf("%s was chosen", u.New.Tailscale.Version)
	}
}

func TestReleaseThatOneSourceLacks(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.Untag(t, "v1.104.0")
	var missing *MissingError
	if err := w.refused(Wish{Channel: lock.Stable}, "v1.104.0: module proxy has it, git repository", w.URL); !errors.As(err, &missing) {
		t.Errorf("%#v", err)
	}
	w.Tag(t, "v1.104.2")
	if err := w.refused(Wish{Channel: lock.Stable}, "v1.104.2: git repository has it, module proxy does not"); !errors.As(err, &missing) {
		t.Errorf("%#v", err)
	}
	// Others than the chosen one are told, and are no reason to stop.
	w.Untag(t, "v1.104.2")
	w.Tag(t, "v1.104.1")
	w.next("v1.104.3", nil)
	w.update(Wish{Channel: lock.Stable})
	w.warned("only the module proxy has v1.104.0", "only the git repository has v1.104.1")
	// Neither has it.
	if err := w.refused(Wish{Channel: lock.Stable, Version: "v1.110.0"}, "v1.110.0", "neither"); errors.As(err, &missing) {
		t.Errorf("%#v", err)
	}
	w.refused(Wish{Channel: lock.Stable, Version: "v1.110"}, `"v1.110" is no release such as`)
}

func TestOneSourceUnreachable(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.source.Repository = strings.Replace(w.URL, "http://", "http://user:secret@", 1) + "/elsewhere"
	err := w.refused(Wish{Channel: lock.Stable}, "git repository cannot be reached: http://user:xxxxx@", "elsewhere",
		"; the module proxy alone says that the newest stable release is v1.104.0")
	if !errors.Is(err, ErrRepository) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	const gone = "http://127.0.0.1:1" // a port that no server is given
	w.source.Modules.Proxies = gone
	if err := w.refused(Wish{Channel: lock.Stable}, gone, "elsewhere"); !errors.Is(err, ErrRepository) || !errors.Is(err, modproxy.ErrUnreachable) {
		t.Error(err)
	}
	w.source.Repository = w.URL
	err = w.refused(Wish{Channel: lock.Stable}, gone, "; the git repository alone says that the newest stable release is v1.104.0")
	if !errors.Is(err, modproxy.ErrUnreachable) {
		t.Error(err)
	}
}

// TestNetworkDies lets the network die for good at every request in turn. There is
// an error and never an update, and nothing is left behind.
func TestNetworkDies(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.addRoots(newRoots)
	w.AddToolchain("go1.26.9", lock.Hosts...)
	// dying has a network that answers the first n requests.
	dying := func(t *testing.T, n int64) (*Source, *atomic.Int64) {
		seen := new(atomic.Int64)
		front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if seen.Add(1) > n {
				panic(http.ErrAbortHandler)
			}
			w.ServeHTTP(rw, req)
		}))
		front.Config.SetKeepAlivesEnabled(false)
		t.Cleanup(front.Close)
		return w.from(t, front.URL), seen
	}
	var requests int64
	for range 2 { // the first makes the checksum database grow
		source, seen := dying(t, 1<<40)
		if _, err := source.Update(t.Context(), w.Inputs, Wish{Channel: lock.Stable}); err != nil {
			t.Fatal(err)
		}
		requests = seen.Load()
	}
	t.Logf("an update takes %d requests", requests)
	for n := range requests {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			source, _ := dying(t, n)
			u, err := source.Update(t.Context(), w.Inputs, Wish{Channel: lock.Stable})
			if err == nil || u != nil {
				t.Fatalf("there is an update: %+v", u)
			}
			if !errors.Is(err, ErrRepository) && !errors.Is(err, modproxy.ErrUnreachable) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestTransferBreaksOff cuts git's transfer in the middle of the objects.
func TestTransferBreaksOff(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	var cut atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		answer := httptest.NewRecorder()
		w.ServeHTTP(answer, req)
		body := answer.Body.Bytes()
		maps.Copy(rw.Header(), answer.Header())
		rw.WriteHeader(answer.Code)
		if at := bytes.Index(body, []byte("PACK")); at > 0 && req.Method == http.MethodPost {
			cut.Add(1)
			_, _ = rw.Write(body[:(at+len(body))/2])
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = rw.Write(body)
	}))
	t.Cleanup(front.Close)
	w.source = w.from(t, front.URL)
	if err := w.refused(Wish{Channel: lock.Stable}); !errors.Is(err, ErrRepository) {
		t.Error(err)
	}
	if cut.Load() == 0 {
		t.Error("nothing was cut")
	}
}

func TestFlags(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", map[string]string{
		"cmd/derper/derper.go": releasetest.DerperSource(
			`flag.String("a", ":444", "address")`,
			`flag.Int("http-port", 80, "port")`,
			`flag.String("tcp-user-timeout", "15s", "timeout")`,
			`flag.Duration("new-flag", 5*time.Second, "new")`),
		"cmd/derper/more.go":      "package main\n\nimport \"flag\"\n\nfunc init() {\n\tvar b bool\n\tflag.BoolVar(&b, \"by-var\", true, \"\")\n\tflag.Func(\"by-func\", \"\", nil)\n\tflag.CommandLine.Var(nil, \"by-value\", \"\")\n\tother.String(\"none\", \"\", \"\")\n}\n",
		"cmd/derper/more_test.go": "package main\n\nimport \"flag\"\n\nvar _ = flag.String(\"test-only\", \"\", \"\")\n",
	})
	var got []string
	for _, f := range w.update(Wish{Channel: lock.Stable}).Flags {
		got = append(got, f.String())
	}
	want := []string{
		`-a (ADDR) has another default: :443 → :444; the image's stays :443`,
		`-by-func is new (value): BY_FUNC`,
		`-by-value is new (value, default computed): BY_VALUE`,
		`-by-var is new (bool, default true): BY_VAR`,
		`-dev is gone (bool, default false): a relay for which DEV is set does not start`,
		`-http-port is new (int, default 80): HTTP_PORT`,
		`-new-flag is new (duration, default 5s): NEW_FLAG`,
		`-tcp-user-timeout (TCP_USER_TIMEOUT) has another type: duration → string`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("flags are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// The tag of the lock's release was moved: its source cannot be had any more.
	w.Tag(t, w.Inputs.Tailscale.Version)
	if u := w.update(Wish{Channel: lock.Stable}); u.Flags != nil {
		t.Errorf("%+v", u.Flags)
	}
	w.warned("derper's flags are not compared")
}
