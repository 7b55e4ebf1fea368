package roots_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"crypto/x509"
	"encoding/pem"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/roots"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/toolchain"
)

// TestMake guards against a bundle that has another content than the module of roots, and
// against one that was made of something else than the lock names.
func TestMake(t *testing.T) {
	r := releasetest.New(t, "../..")
	dir := releasetest.CacheDir(t)
	client := &modproxy.Client{Proxies: r.Proxy, SumDB: r.SumDB, Dir: filepath.Join(dir, "sumdb"), Temp: filepath.Join(dir, "tmp")}
	tool, err := toolchain.Install(t.Context(), client, r.Inputs.Go, pipeline.Host, dir, nil, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	action := plan.Action{}
	commands, err := plan.Commands(r.Inputs, r.Inputs.Platforms[:1], pipeline.Host)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range commands {
		if a.Kind == "roots" {
			action = *a
		}
	}

	// In the order of the module, whatever their names are. That a root has expired is for
	// those who use it to see: a build must not depend on the day.
	free := []releasetest.Root{{Name: "Zebra"}, {Name: "Expired", NotAfter: time.Unix(1, 0)}, {Name: "Ant"}}
	constrained := []releasetest.Root{{Name: "Limited B", Constrained: true}, {Name: "Limited A", Constrained: true}}
	mixed := []releasetest.Root{free[0], constrained[0], free[1], constrained[1], free[2]}
	for _, test := range []struct {
		name          string
		version       string
		roots         []releasetest.Root
		change        func(*lock.Inputs)
		bundle, lines []string // subjects
		err           string
	}{
		{name: "mixed", version: "v0.0.1", roots: mixed, bundle: []string{"CN=Zebra", "CN=Expired", "CN=Ant"}, lines: []string{"CN=Limited B", "CN=Limited A"}},
		{name: "none left out", version: "v0.0.2", roots: free[2:], bundle: []string{"CN=Ant"}},
		{name: "all left out", version: "v0.0.3", roots: constrained, err: "roots: golang.org/x/crypto/x509roots/fallback@v0.0.3 has no roots"},
		{name: "wrong sum", version: "v0.0.4", roots: free, change: func(in *lock.Inputs) { in.Roots.Sum = r.Inputs.Roots.Sum }, err: "roots: golang.org/x/crypto/x509roots/fallback@v0.0.4: sum does not match: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := r.Inputs
			in.Roots = r.AddRoots(t, test.version, test.roots...)
			if test.change != nil {
				test.change(&in)
			}
			made, err := roots.Make(t.Context(), tool, in, action.Env, action.Args, t.TempDir())
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("%v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// The plan names these; the base layer takes them by their names.
			content := map[string][]byte{}
			for _, name := range action.Outputs {
				data, err := os.ReadFile(made[name])
				if err != nil {
					t.Error(err)
				}
				content[name] = data
			}
			if len(made) != len(action.Outputs) {
				t.Errorf("made %v, want %q", made, action.Outputs)
			}
			if got := string(content["LICENSE"]); got != "the roots' licence\n" {
				t.Errorf("LICENSE: %q", got)
			}
			var subjects []string
			for rest := content["ca-certificates.crt"]; ; {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					break
				}
				cert, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				subjects = append(subjects, cert.Subject.String())
			}
			if got := strings.Join(subjects, "|"); got != strings.Join(test.bundle, "|") {
				t.Errorf("the bundle has %s, want %q", got, test.bundle)
			}
			if !x509.NewCertPool().AppendCertsFromPEM(content["ca-certificates.crt"]) {
				t.Error("no program can read the bundle")
			}
			var want strings.Builder
			for _, subject := range test.lines {
				want.WriteString("[0-9a-f]{64} " + subject + "\n")
			}
			if got := content["left-out.txt"]; !regexp.MustCompile("^" + want.String() + "$").Match(got) {
				t.Errorf("left out: %q, want %q", got, test.lines)
			}
		})
	}
	t.Run("damaged afterwards", func(t *testing.T) {
		in := r.Inputs
		in.Roots = r.AddRoots(t, "v0.0.5", free[0])
		work := t.TempDir()
		if _, err := roots.Make(t.Context(), tool, in, action.Env, action.Args, work); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "modules", "golang.org/x/crypto/x509roots/fallback@v0.0.5/bundle/bundle.go")
		if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, []byte("package bundle\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		made, err := roots.Make(t.Context(), tool, in, action.Env, action.Args, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(made["ca-certificates.crt"]); err != nil || !strings.HasPrefix(string(data), "# CN=Zebra\n") {
			t.Errorf("%q, %v", data, err)
		}
	})
}
