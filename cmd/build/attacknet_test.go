package main

import (
	"archive/zip"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/relaytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// relays are the rows of relays that lie or are broken.
func relays(t *testing.T) (rows []encounter) {
	page := func(h http.HandlerFunc) *relaytest.Relay {
		return &relaytest.Relay{Pages: map[string]http.HandlerFunc{"/bootstrap-dns": h}}
	}
	list := append(relaytest.All(t), []relaytest.Broken{
		{What: "a content type with an escape", Relay: page(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/\x1b[2Jhtml")
			w.WriteHeader(http.StatusOK)
		})},
		{What: "a page with an escape", Relay: &relaytest.Relay{Home: func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Location", "https://example.com/\x1b[2J")
			w.WriteHeader(http.StatusTeapot)
		}}},
		{What: "a page without an end", Relay: page(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for {
				if _, err := w.Write(bytes.Repeat([]byte("[["), 1<<15)); err != nil {
					return
				}
			}
		})},
	}...)
	for _, b := range list {
		switch {
		case b.Relay.Conn != nil, strings.Contains(b.Fails, "ipv6"), b.Relay.Listen[1], b.Host == "::1":
			continue // of another family, or of connections in their order, which is of both
		case b.Fails == "tls/certificate" && b.Host == "":
			continue // is for those who do not pin it
		case b.What == "expired certificate, pinned":
			continue // as all are here
		}
		rows = append(rows, encounter{kind: "Relays", attack: b.What, command: "probe", meet: func(t *testing.T) met {
			if b.Fails == "tls/sni" {
				return probes(b.Relay.Start(t, "relay.example"), true)(t)
			}
			return probes(b.Relay.Start(t, "127.0.0.1"), true)(t)
		}})
	}
	for _, a := range []struct {
		name   string
		pinned bool
	}{{"a certificate of an unknown authority", false}, {"another certificate than the pinned one", true}} {
		rows = append(rows, encounter{kind: "Relays", attack: a.name, command: "probe", meet: func(t *testing.T) met {
			r := new(relaytest.Relay).Start(t, "relay.example")
			r.Pin = "sha256-raw:" + strings.Repeat("5a", 32)
			return probes(r, a.pinned)(t)
		}})
	}
	rows = append(rows, encounter{kind: "Relays", attack: "an expired certificate that nobody verifies", command: "probe --insecure", meet: func(t *testing.T) met {
		r := (&relaytest.Relay{Cert: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
		}}).Start(t, "relay.example")
		return probes(r, false, "--insecure")(t)
	}})
	return rows
}

// probes asks a relay, under its name at 127.0.0.1, or under its address.
func probes(r relaytest.Running, pinned bool, flags ...string) func(t *testing.T) met {
	args := append([]string{"probe", r.Host + ":" + strconv.Itoa(r.Port), "--packets", "1000",
		"--stun-port", strconv.Itoa(r.STUNPort), "--http-port", strconv.Itoa(r.HTTPPort)}, flags...)
	if r.Addrs != nil {
		args = append(args, "--addr", "127.0.0.1")
	}
	if pinned {
		args = append(args, "--cert-name", r.Pin)
	}
	return func(t *testing.T) met { return program(t, func(*env) {}, args...) }
}

// modules are the rows of module proxies and checksum databases that lie.
func modules(t *testing.T) (rows []encounter) {
	tailscale := func(r *releasetest.Release) module.Version {
		return module.Version{Path: lock.TailscaleModule, Version: r.Inputs.Tailscale.Version}
	}
	answer := func(suffix string, h http.HandlerFunc) func(*testing.T, *releasetest.Release) {
		return func(_ *testing.T, r *releasetest.Release) {
			r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, suffix) {
					return false
				}
				h(w, req)
				return true
			})
		}
	}
	zipOf := func(names ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			for _, name := range names {
				if f, err := z.Create(name); err == nil {
					f.Write([]byte("evil"))
				}
			}
			z.Close()
			w.Write(b.Bytes())
		}
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(s)) }
	}
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	version := l.Inputs.Tailscale.Version
	for _, a := range []struct {
		name string
		do   func(t *testing.T, r *releasetest.Release)
	}{
		{"a module with an added file", func(t *testing.T, r *releasetest.Release) { r.Tamper(t, tailscale(r)) }},
		{"a module that tailscale needs, with an added file", func(t *testing.T, r *releasetest.Release) {
			r.Tamper(t, module.Version{Path: "example.com/dep", Version: "v1.0.0"})
		}},
		{"CA roots with an added file", func(t *testing.T, r *releasetest.Release) {
			r.Tamper(t, module.Version{Path: lock.RootsModule, Version: r.Inputs.Roots.Version})
		}},
		{"a web page in the place of a module", answer(version+".zip", text("<html>please log in\x1b[2J"))},
		{"an empty module", answer(version+".zip", text(""))},
		{"a module of another name", answer(version+".zip", zipOf("example.com/evil@v1.0.0/evil.go"))},
		{"a module that leads out of its folder", answer(version+".zip", zipOf("tailscale.com@"+version+"/../../../evil.go"))},
		{"a module with a file twice", answer(version+".zip", zipOf("tailscale.com@"+version+"/a.go", "tailscale.com@"+version+"/a.go"))},
		{"a module without an end", answer(version+".zip", func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(bytes.Repeat([]byte("PK"), 1<<19)); err != nil {
					return
				}
			}
		})},
		{"a module that is redirected to a file of this machine", answer(version+".zip", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "file:///etc/passwd", http.StatusFound)
		})},
		{"a module that is redirected to itself", answer(version+".zip", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, req.URL.Path, http.StatusFound)
		})},
		{"a refusal with an escape", answer(version+".zip", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "\x1b[2Jverified", http.StatusForbidden)
		})},
		{"another go.mod of a module", answer(version+".mod", text("module tailscale.com\n\ngo 1.24\n\nrequire example.com/evil v1.0.0\n"))},
		{"a checksum database that knows nothing of the module", answer("/lookup/tailscale.com@"+version, http.NotFound)},
		{"a checksum database whose answer is not signed", answer("/lookup/tailscale.com@"+version, text("0\ntailscale.com "+version+" h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"))},
		{"a checksum database that answers with an escape", answer("/lookup/tailscale.com@"+version, text("\x1b[2J"))},
		{"a checksum database that is another's", func(t *testing.T, r *releasetest.Release) { r.SumDB = releasetest.New(t, "../..").SumDB }},
		{"a lock with another sum of the module", func(_ *testing.T, r *releasetest.Release) { r.Inputs.Tailscale.Sum = r.Inputs.Roots.Sum }},
		{"a lock with another sum of the CA roots", func(_ *testing.T, r *releasetest.Release) { r.Inputs.Roots.Sum = r.Inputs.Tailscale.Sum }},
		{"a lock with another sum of Go", func(_ *testing.T, r *releasetest.Release) {
			sums := map[string]string{}
			for host := range r.Inputs.Go.Sums {
				sums[host] = r.Inputs.Roots.Sum
			}
			r.Inputs.Go.Sums = sums
		}},
		{"a lock with a Go that nobody knows", func(_ *testing.T, r *releasetest.Release) { r.Inputs.Go.Version = "go1.99.99" }},
	} {
		rows = append(rows, encounter{kind: "Modules", attack: a.name, command: "image", meet: func(t *testing.T) met {
			r := releasetest.New(t, "../..")
			r.Inputs.Platforms = []lock.Platform{"linux/amd64"}
			a.do(t, r)
			dist := filepath.Join(t.TempDir(), "dist")
			m := program(t, func(e *env) {
				e.sumDB, e.getenv = sumDBOf(r), variables(map[string]string{"GOPROXY": r.Proxy})
			}, "image", "--lock", r.Lock(t), "--cache", releasetest.CacheDir(t), "--platform", "linux/amd64", "--output", dist)
			if _, err := os.Stat(filepath.Join(dist, "index.json")); err == nil {
				t.Error("there is an image")
			}
			return m
		}})
	}
	return rows
}

// upstreams are the rows of attacks by whoever has tailscale's git repository.
func upstreams(t *testing.T) (rows []encounter) {
	const version = "v1.104.0"
	next := func(t *testing.T, u *releasetest.Repository) {
		u.Commit(t, map[string]string{"VERSION.txt": version})
		u.Publish(t, version)
	}
	after := func(do func(t *testing.T, u *releasetest.Repository)) func(*testing.T, *releasetest.Repository) {
		return func(t *testing.T, u *releasetest.Repository) {
			next(t, u)
			do(t, u)
		}
	}
	attributes := func(line string) func(*testing.T, *releasetest.Repository) {
		return func(t *testing.T, u *releasetest.Repository) {
			u.Commit(t, map[string]string{".gitattributes": line})
			u.Publish(t, version)
		}
	}
	for _, a := range []struct {
		name string
		do   func(t *testing.T, u *releasetest.Repository)
	}{
		{"a tag that was moved to other source", after(func(t *testing.T, u *releasetest.Repository) {
			u.Commit(t, map[string]string{"evil.go": "package evil\n"})
			u.Tag(t, version)
		})},
		{"a tag that was moved to another time", after(func(t *testing.T, u *releasetest.Repository) {
			u.Commit(t, nil)
			u.Tag(t, version)
		})},
		{"a tag that was moved to the same source, and the proxy knows", after(func(t *testing.T, u *releasetest.Repository) {
			u.SetInfo(version, time.Date(2026, 9, 1, 2, 0, 0, 0, time.UTC), u.Head(t).String())
			u.Amend(t)
			u.Tag(t, version)
		})},
		{"a module that is not what the tag has", func(t *testing.T, u *releasetest.Repository) {
			u.Commit(t, map[string]string{"cmd/derper/backdoor.go": "package main\n"})
			u.PublishModule(t, version)
			if err := os.Remove(filepath.Join(u.Dir, "cmd/derper/backdoor.go")); err != nil {
				t.Fatal(err)
			}
			u.Amend(t)
			u.Tag(t, version)
		}},
		{"a tag of something that is no commit", after(func(t *testing.T, u *releasetest.Repository) {
			c, err := u.Git.CommitObject(u.Head(t))
			if err != nil {
				t.Fatal(err)
			}
			u.TagObject(t, version, c.TreeHash)
		})},
		{"a release that only the proxy has", after(func(t *testing.T, u *releasetest.Repository) { u.Untag(t, version) })},
		{"a time of the proxy that is not the commit's", after(func(t *testing.T, u *releasetest.Repository) {
			u.SetInfo(version, time.Date(2001, 9, 9, 1, 46, 40, 0, time.UTC), "")
		})},
		{"a commit of the proxy that is not the tag's", after(func(t *testing.T, u *releasetest.Repository) {
			u.SetInfo(version, time.Date(2026, 9, 1, 2, 0, 0, 0, time.UTC), strings.Repeat("0123456789", 4))
		})},
		{"attributes that leave files out of the module", attributes("a export-ignore\n")},
		{"attributes that write into the module's files", attributes("*.go export-subst\n")},
		{"attributes that make other lines' ends", attributes("*.go text eol=crlf\n")},
		{"an answer of the proxy that is no JSON", after(func(_ *testing.T, u *releasetest.Repository) {
			u.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, version+".info") {
					return false
				}
				w.Write([]byte("evil\x1b[2J"))
				return true
			})
		})},
		{"an answer of the proxy about another version", after(func(_ *testing.T, u *releasetest.Repository) {
			u.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, version+".info") {
					return false
				}
				w.Write([]byte(`{"Version":"v1.0.1","Time":"2026-09-01T02:00:00Z"}`))
				return true
			})
		})},
		{"a git server that answers with a web page", func(_ *testing.T, u *releasetest.Repository) {
			u.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.Contains(req.URL.Path, "upstream.git") {
					return false
				}
				w.Write([]byte("<html>\x1b[2J"))
				return true
			})
		}},
		{"a checksum database with another sum than the lock's", func(t *testing.T, u *releasetest.Repository) {
			u.Commit(t, map[string]string{"evil.go": "package evil\n"})
			u.Publish(t, u.Inputs.Tailscale.Version)
		}},
	} {
		rows = append(rows, encounter{kind: "Upstream", attack: a.name, command: "update", meet: func(t *testing.T) met {
			u := releasetest.NewRepository(t, releasetest.New(t, "../.."))
			l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: u.Inputs}
			name := filepath.Join(t.TempDir(), lock.File)
			if err := l.Write(name); err != nil {
				t.Fatal(err)
			}
			before := hashFile(t, name)
			a.do(t, u)
			args := []string{"update", "--lock", name, "--source-repo", u.URL, "--cache", t.TempDir()}
			if strings.HasSuffix(a.name, "the lock's") {
				args = append(args, "--version", u.Inputs.Tailscale.Version)
			} else if !strings.Contains(a.name, "web page") {
				args = append(args, "--version", version)
			}
			m := program(t, func(e *env) {
				e.sumDB, e.getenv = sumDBOf(u.Release), variables(map[string]string{"GOPROXY": u.Proxy})
			}, args...)
			if hashFile(t, name) != before {
				t.Error("the lock is another")
			}
			return m
		}})
	}
	return rows
}

// locks are the rows of documents that are fed to the program: locks, and folders that it
// is to write to.
func locks(w *hostileWorld) (rows []encounter) {
	replace := func(old, new string) func(string) string {
		return func(s string) string {
			short := w.release.Inputs.Tailscale.Short()
			old, new := strings.ReplaceAll(old, "1.102.3", short), strings.ReplaceAll(new, "1.102.3", short)
			if !strings.Contains(s, old) {
				panic(fmt.Sprintf("there is no %q in the lock", old))
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	for _, a := range []struct {
		name   string
		change func(string) string
	}{
		{"a second document behind the lock", func(s string) string { return s + s }},
		{"bytes behind the lock", func(s string) string { return s + "evil\x1b[2J" }},
		{"half of a lock", func(s string) string { return s[:len(s)/2] }},
		{"an unknown key", replace(`"inputs": {`, `"\u001b[2J": 1, "inputs": {`)},
		{"a key twice", replace(`"commit": "`, `"commit": "0000000000000000000000000000000000000000", "commit": "`)},
		{"a key in capitals", replace(`"commit": "`, `"Commit": "`)},
		{"a platform twice", replace(`"linux/arm64"`, `"linux/amd64"`)},
		{"an unknown platform", replace(`"linux/arm64"`, `"linux/\u001b[2J"`)},
		{"a version with an escape", replace(`"v1.102.3"`, `"v1.102.3\u001b[2J"`)},
		{"a version that is a path", replace(`"v1.102.3"`, `"v1.102.3/../../evil"`)},
		{"a version that is a branch", replace(`"v1.102.3"`, `"main"`)},
		{"a sum of another kind", replace(`"h1:`, `"h2:`)},
		{"a program from elsewhere", replace("tailscale.com/cmd/derper", "example.com/cmd/derper")},
		{"a program that is a command", replace("tailscale.com/cmd/derper", "tailscale.com/a;evil/derper")},
		{"a program that is a pattern", replace("tailscale.com/cmd/derper", "tailscale.com/.../derper")},
		{"build tags with a flag", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "buildTags": ["a -toolexec=evil"]`)},
		{"a file outside of the image", replace(`"name": "default",`, `"name": "default", "files": [{"path": "../x", "mode": "0644"}],`)},
		{"a file that hides a program", replace(`"name": "default",`, `"name": "default", "files": [{"path": "entrypoint", "mode": "0755"}],`)},
		{"a file that takes others away", replace(`"name": "default",`, `"name": "default", "files": [{"path": "etc/.wh.passwd", "mode": "0644"}],`)},
		{"a file with a set-user-ID bit", replace(`"name": "default",`, `"name": "default", "files": [{"path": "x", "mode": "04755"}],`)},
		{"a time with a zone", func(s string) string { return strings.Replace(s, `Z",`, `+02:00",`, 1) }},
		{"a revision of 2^53", replace(`"revision": 0`, `"revision": 9007199254740991`)},
		{"a lock that is nested 100,000 deep", func(string) string { return strings.Repeat("[", 100_000) }},
		{"an empty lock", func(string) string { return "" }},
	} {
		rows = append(rows, encounter{kind: "Locks", attack: a.name, command: "plan", meet: func(t *testing.T) met {
			data, err := os.ReadFile(w.lock)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(t.TempDir(), lock.File)
			if err := os.WriteFile(name, []byte(a.change(string(data))), 0o644); err != nil {
				t.Fatal(err)
			}
			m := program(t, w.around, "plan", "--lock", name)
			m.hide = []string{name}
			return m
		}})
	}
	for _, a := range []struct {
		name string
		fill func(dir string) error
	}{
		{"a folder with somebody's files", func(dir string) error { return os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644) }},
		{"a layout of another program", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"schemaVersion":2,"manifests":[]}`), 0o644)
		}},
		{"a list of files that leads out of the folder", func(dir string) error {
			data, err := json.Marshal(map[string]any{"files": map[string]string{"../victim": "1 2 3"}})
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, ".derper-layout.json"), data, 0o644)
		}},
		{"a list of files that is damaged", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ".derper-layout.json"), []byte(`{"files`), 0o644)
		}},
	} {
		rows = append(rows, encounter{kind: "Folders to write to", attack: a.name, command: "image --output", meet: func(t *testing.T) met {
			above := t.TempDir()
			dir, victim := filepath.Join(above, "dist"), filepath.Join(above, "victim")
			for _, err := range []error{os.Mkdir(dir, 0o755), os.WriteFile(victim, nil, 0o644), a.fill(dir)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			m := program(t, w.around, "image", "--lock", w.inputs, "--cache", w.cache, "--platform", "linux/amd64", "--output", dir)
			if _, err := os.Stat(victim); err != nil {
				t.Error(err)
			}
			m.hide = []string{dir}
			return m
		}})
	}
	return rows
}
