package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/hostile"
)

// A pretender is what the module proxy has for the version that an image claims: its entrypoint
// is another than this program makes.
type pretender struct {
	name     string
	version  string // of the module, "" for none
	ref      string // that the proxy has it from
	lock     func(l *lock.Lock)
	program  string // its main function
	tampered bool   // with the module that the proxy serves
	unknown  bool   // to the checksum database
}

var pretenders = []pretender{
	{name: "a revision that nobody knows"},
	{name: "a revision that is a release of Go's kind", version: "v1.0.0"},
	{name: "a revision that is a branch", version: "v0.0.0-20260901000000-000000000003", ref: "refs/heads/main"},
	{name: "a revision that is a path", version: "../../etc/passwd"},
	{name: "a revision that the checksum database does not know", version: "v0.0.0-20260901000000-000000000005", unknown: true},
	{name: "a revision whose source was changed", version: "v0.0.0-20260901000000-000000000006", tampered: true},
	{name: "a revision without a lock", version: "v0.0.0-20260901000000-000000000007"},
	{name: "a revision of an older release", version: "v0.0.0-20260901000000-000000000008", lock: func(l *lock.Lock) { l.Inputs.Revision = 0 }},
	{name: "a revision with other inputs", version: "v0.0.0-20260901000000-000000000009", lock: func(l *lock.Lock) { l.Inputs.Source = "https://example.com/other" }},
	{name: "a revision that does not compile", version: "v0.0.0-20260901000000-000000000010", lock: func(*lock.Lock) {}, program: "evil()"},
	{name: "a revision that builds nothing", version: "v0.0.0-20260901000000-000000000011", lock: func(*lock.Lock) {}},
	{name: "a revision that says that it is all good", version: "v0.0.0-20260901000000-000000000012", lock: func(*lock.Lock) {},
		program: `os.Mkdir(os.Args[6], 0o755); println("verified\x1b[2J"); os.Exit(0)`},
	{name: "a revision that fails with an escape", version: "v0.0.0-20260901000000-000000000013", lock: func(*lock.Lock) {}, program: `println("\x1b[2J"); os.Exit(1)`},
	{name: "a revision that leads to another folder", version: "v0.0.0-20260901000000-000000000014", lock: func(*lock.Lock) {}, program: `os.Symlink("/tmp", os.Args[6])`},
}

// revisions are the rows of attacks with the revision of this project that an image claims to
// be of.
func (w *hostileWorld) revisions(t *testing.T) (rows []encounter) {
	answers := map[string]string{}
	for i, p := range pretenders {
		revision := 100 + i
		version := lock.ImageVersion{Tailscale: w.release.Inputs.Tailscale.Version, Revision: revision}.String()
		m := module.Version{Path: derper.Module, Version: p.version}
		if p.version != "" {
			answers["/"+derper.Module+"/@v/"+version+".info"] = fmt.Sprintf(`{"Version":%q,"Time":"2026-09-01T00:00:00Z","Origin":{"VCS":"git","Ref":%q}}`, p.version, p.ref)
		}
		if module.IsPseudoVersion(p.version) && !p.unknown {
			files := map[string]string{"go.sum": "", "cmd/build/main.go": "package main\n\nimport \"os\"\n\nfunc main() { os.Getpid(); " + p.program + " }\n"}
			if p.lock != nil {
				l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: w.release.Inputs}
				l.Inputs.Revision = revision
				p.lock(l)
				data, err := l.Bytes()
				if err != nil {
					t.Fatal(err)
				}
				files[lock.File] = string(data)
			}
			w.release.Add(t, m, "module "+derper.Module+"\n\ngo 1.26.0\n", files)
			if p.tampered {
				w.release.Tamper(t, m)
			}
		}
		attack := hostile.Revision(p.name, revision)
		rows = append(rows, encounter{"Revisions of this project", p.name, "verify", "", func(t *testing.T) met {
			source := attack.Open(t, w.good, attack.Content(t, w.good))
			got := program(t, func(e *env) {
				w.around(e)
				e.shared = []string{"toolchain", "go-build"}
			}, "verify", "--lock", w.lock, "--trust-cache", "--cache", w.cache, source)
			got.hide = []string{source}
			return got
		}})
	}
	w.release.Intercept(func(rw http.ResponseWriter, req *http.Request) bool {
		answer, ok := answers[req.URL.Path]
		if ok {
			_, _ = strings.NewReader(answer).WriteTo(rw)
		}
		return ok
	})
	return rows
}
