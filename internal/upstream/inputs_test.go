package upstream

import (
	"net/http"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
)

// TestToolchain goes through what upstream's go.mod may ask for. The lock has
// go1.26.8.
func TestToolchain(t *testing.T) {
	all := lock.Hosts
	for _, test := range []struct {
		name     string
		goMod    string
		have     map[string][]string // toolchains at the proxy, with their hosts
		forbid   string              // path that the proxy answers with 403
		want     string
		warnings []string
		err      string
	}{
		{name: "the newest patch", goMod: "go 1.26.6", have: map[string][]string{"go1.26.9": all, "go1.26.10": all}, want: "go1.26.10"},
		{name: "no other minor version", goMod: "go 1.26.6", have: map[string][]string{"go1.27.1": all}, want: "go1.26.8"},
		{name: "upstream's new minor version", goMod: "go 1.27.1", have: map[string][]string{"go1.27.0": all, "go1.27.1": all, "go1.28.0": all}, want: "go1.27.1"},
		{name: "upstream's older minor version", goMod: "go 1.25.3", have: map[string][]string{"go1.25.5": all}, want: "go1.25.5"},
		{name: "a language version", goMod: "go 1.27", have: map[string][]string{"go1.27.1": all}, want: "go1.27.1"},
		{name: "a toolchain line", goMod: "go 1.26.6\ntoolchain go1.27.2", have: map[string][]string{"go1.27.1": all, "go1.27.3": all}, want: "go1.27.3"},
		{name: "a candidate", goMod: "go 1.27rc1", have: map[string][]string{"go1.27rc2": all, "go1.27.0": all}, want: "go1.27.0"},
		{name: "not for every host", goMod: "go 1.26.6", have: map[string][]string{"go1.26.9": all, "go1.26.10": {"linux/amd64"}},
			want: "go1.26.9", warnings: []string{"go1.26.10 is passed over: info of golang.org/toolchain@v0.0.1-go1.26.10.darwin-amd64"}},
		{name: "forbidden", goMod: "go 1.26.6", have: map[string][]string{"go1.26.9": all}, forbid: "v0.0.1-go1.26.9.linux-arm64.info",
			want: "go1.26.8", warnings: []string{"go1.26.9 is passed over"}},
		{name: "none", goMod: "go 1.28.1", have: map[string][]string{"go1.28.0": all, "go1.28.2": {"linux/amd64"}},
			warnings: []string{"go1.28.2", "go1.28.1"}, err: "v1.104.0 wants go1.28.1: the module proxy has no release of go1.28"},
		{name: "no go line", err: "names no Go version"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newModuleWorld(t)
			for version, hosts := range test.have {
				w.AddToolchain(version, hosts...)
			}
			if test.forbid != "" {
				w.answer(test.forbid, http.StatusForbidden, "no")
			}
			goMod := []byte("module tailscale.com\n\n" + test.goMod + "\n")
			g, err := w.source.toolchain(t.Context(), "v1.104.0", goMod, w.Inputs.Go)
			if test.err != "" {
				if err == nil {
					t.Fatalf("%+v", g)
				}
				w.contains(err.Error(), test.err)
			} else if err != nil || g.Version != test.want || len(g.Sums) != len(all) {
				t.Errorf("%+v, %v", g, err)
			}
			w.warned(test.warnings...)
		})
	}
}

// A toolchain that the proxy does not list is asked for when upstream names it.
func TestToolchainNotListedYet(t *testing.T) {
	w := newWorld(t)
	w.AddToolchain("go1.27.4", lock.Hosts...)
	w.next("v1.104.0", map[string]string{"go.mod": "module tailscale.com\n\ngo 1.27.4\n"})
	w.answer("golang.org/toolchain/@v/list", http.StatusOK, "")
	if g := w.update(Wish{Channel: lock.Stable}).New.Go; g.Version != "go1.27.4" {
		t.Errorf("%+v", g)
	}
}

// TestRoots has proxies that tell in different ways what the newest roots are.
func TestRoots(t *testing.T) {
	const (
		path   = "/golang.org/x/crypto/x509roots/fallback/"
		latest = `{"Version":"` + newRoots + `","Time":"2026-11-20T00:00:00Z"}`
	)
	for _, test := range []struct {
		name    string
		answers map[string]string // by path; 403 for those that are empty
		want    string            // empty: those of the lock
		warning string
	}{
		{"a list", nil, newRoots, ""},
		{"an empty list, and the latest", map[string]string{"@v/list": "\n", "@latest": latest}, newRoots, ""},
		{"no list, and the latest", map[string]string{"@v/list": "", "@latest": latest}, newRoots, ""},
		{"neither", map[string]string{"@v/list": "", "@latest": ""}, "", "the newest CA roots could not be found out, kept are those of"},
		{"older ones only", map[string]string{"@v/list": oldRoots + "\n"}, "", ""},
		{"not the newest", map[string]string{"@v/" + newRoots + ".info": ""}, "", "CA roots " + newRoots + " are passed over"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newModuleWorld(t)
			w.addRoots(newRoots)
			w.addRoots(oldRoots)
			w.Intercept(func(rw http.ResponseWriter, req *http.Request) bool {
				answer, ok := test.answers[strings.TrimPrefix(req.URL.Path, path)]
				if !ok || !strings.HasPrefix(req.URL.Path, path) {
					return false
				}
				if answer == "" {
					http.Error(rw, "no", http.StatusForbidden)
				} else if _, err := rw.Write([]byte(answer)); err != nil {
					t.Error(err)
				}
				return true
			})
			got, err := w.source.roots(t.Context(), w.Inputs.Roots)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" && got != w.Inputs.Roots || test.want != "" && (got.Version != test.want || got.Sum == "") {
				t.Errorf("%+v, want %s", got, test.want)
			}
			if test.warning != "" {
				w.warned(test.warning)
			} else {
				w.warned()
			}
		})
	}
}
