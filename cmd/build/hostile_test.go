package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
)

// wipes is what strangers say: it wipes the screen, in three ways, turns the text around,
// and gives commands to GitHub Actions.
const wipes = "\x1b[2J\u009b2J\u202e\u2066 ##[add-mask]a"

var (
	// raw is what a terminal or GitHub Actions would carry out.
	raw = regexp.MustCompile("[\x00-\x08\x0b-\x1f\x7f\u0080-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|##\\[|(?m:^\\s*::)")
	// visible is how wipes begins when it is shown, also in Go's quotes and in JSON.
	visible = regexp.MustCompile(`\\(x1b|u001b)\[2J`)
)

// stranger answers each request on loopback with what a stranger says: in the reason and the
// body. It returns its address.
func stranger(t *testing.T, secure *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	body, err := json.Marshal(map[string]any{
		"message": wipes + "\n::error::b",
		"errors":  []any{map[string]string{"code": "DENIED" + wipes, "message": wipes + "\n::error::b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(c net.Conn) {
		defer c.Close()
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.Copy(io.Discard, io.LimitReader(req.Body, 1<<20))
		status := 403
		if req.URL.Path == "/v2/" { // as a registry does; else it is asked again and again
			status = 200
		}
		fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, wipes, len(body), body)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if secure != nil {
				c = tls.Server(c, secure)
			}
			go answer(c)
		}
	}()
	return ln.Addr().String()
}

// A row is what a command meets.
type row struct {
	what   string
	args   []string
	silent bool // nothing of what a stranger says is shown
}

// TestHostile sends control sequences through every command.
//
// The mistake it guards: labels, errors and reasons that reached the terminal raw, and a
// command that nobody has looked at.
func TestHostile(t *testing.T) {
	t.Chdir(t.TempDir())
	host := stranger(t, nil)
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS() // for its certificate
	relay := stranger(t, &tls.Config{Certificates: server.TLS.Certificates})
	server.Close()
	for name, value := range map[string]string{
		"GOPROXY": "http://" + host, "DOCKER_CONFIG": t.TempDir(), "GITHUB_API_URL": "http://" + host, "GITHUB_REPOSITORY": "a/b",
		"GITHUB_TOKEN": "token", "GITHUB_RUN_ID": "1", "GITHUB_STEP_SUMMARY": "", "GITHUB_OUTPUT": "", "COSIGN_PASSWORD": "",
	} {
		t.Setenv(name, value)
	}
	good := registrytest.NewRelease(t, "v1.102.3", 100)
	key, public := keyPair(t)
	digest := "@" + good.Lock.Output().Index
	ref := host + "/derper"

	// A lock with words of a stranger, and layouts with them.
	spoiled := "spoiled.json"
	data, err := os.ReadFile(good.LockFile)
	if err != nil {
		t.Fatal(err)
	}
	word, _ := json.Marshal(wipes)
	write(t, spoiled, strings.Replace(string(data), `"revision"`, string(word)+": 1,\n    \"revision\"", 1))
	layouts := hostileLayouts(t, good)
	claims, platforms := layouts["claims"], layouts["platforms"]
	missing := "./" + wipes

	rows := map[string][]row{
		"": {
			{"the name of a lock", []string{"--lock", missing}, false},
			{"a lock", []string{"--lock", spoiled}, false},
		},
		"image": {
			{"the name of a lock", []string{"--lock", missing}, false},
			{"a lock", []string{"--lock", spoiled}, false},
			{"a module proxy", []string{"--lock", good.LockFile, "--cache", "cache" + wipes}, false},
		},
		"test": {
			{"a registry", []string{ref}, false},
			{"the platforms of a layout", []string{"--platform", "linux/riscv64", platforms}, false},
			{"the name of a layout", []string{missing}, false},
			{"the name of a file", []string{"--junit", wipes, "--run", wipes, missing}, false},
		},
		"verify": {
			{"a registry", []string{ref}, false},
			{"the claims of a layout", []string{claims}, false},
			{"the platforms of a layout", []string{platforms}, false},
			{"the claims of a layout, as JSON", []string{"--json", claims}, false},
			{"the name of a layout", []string{missing}, false},
			{"a lock", []string{"--lock", spoiled, claims}, false},
			{"the name of a rebuilder", []string{"--require", "1", "--rebuilder", wipes, ref}, false},
			{"the name of a folder of rebuilders", []string{"--require", "1", "--rebuilders", missing, ref}, false},
			{"the name of a checkout", []string{"--builder", missing, claims}, false},
		},
		"probe": {
			{"a relay", []string{"--insecure", "--stun-port=-1", "--http-port=-1", "--timeout", "2s", relay}, false},
			{"a relay, as JSON", []string{"--json", "--insecure", "--stun-port=-1", "--http-port=-1", "--timeout", "2s", relay}, false},
			{"the name of a relay", []string{wipes}, false},
		},
		"push": {
			{"a registry", []string{"--lock", good.LockFile, "--to", ref, good.Dir}, false},
			{"a layout", []string{"--lock", good.LockFile, "--to", ref, claims}, true}, // it is not on record, which is all that is said
			{"the name of a layout", []string{"--lock", good.LockFile, "--to", ref, missing}, false},
			{"a lock", []string{"--lock", spoiled, good.Dir}, false},
			{"the name of a tag", []string{"--lock", good.LockFile, "--to", ref, "--tag", wipes, good.Dir}, false},
		},
		"sign": {
			{"a registry", []string{"--lock", good.LockFile, "--key", key, ref + digest}, false},
			{"the name of a layout", []string{"--key", key, missing}, false},
			{"the name of a key", []string{"--key", missing, good.Dir}, false},
			{"the name of a file of results", []string{"--lock", good.LockFile, "--key", key, "--tests", missing, "--to", ref, good.Dir}, false},
		},
		"verify-signature": {
			{"a registry", []string{"--key", public, ref}, false},
			{"the name of a reference", []string{"--key", public, wipes}, false},
		},
		"attest": {
			{"the platforms of a layout", []string{"--lock", good.LockFile, platforms}, true}, // it is not on record, which is all that is said
			{"a lock", []string{"--lock", spoiled, good.Dir}, false},
			{"the name of a layout", []string{missing}, false},
		},
		"scan": {
			{"a lock", []string{"--lock", spoiled}, false},
			{"the name of a lock", []string{"--lock", missing}, false},
			{"a module proxy", []string{"--lock", good.LockFile, "--cache", "cache" + wipes}, false},
		},
		"release": {
			{"a registry", []string{"--lock", good.LockFile, "--unsigned", "--folder", "release", "--to", ref}, false},
			{"a registry, to withdraw", []string{"--lock", good.LockFile, "--withdraw", "1.102.3-r0", "--folder", "release", "--to", ref}, false},
			{"a lock", []string{"--lock", spoiled, "--unsigned", "--to", ref}, false},
			{"a version", []string{"--withdraw", wipes}, false},
		},
		"update": {
			{"a module proxy and a repository", []string{"--lock", good.LockFile, "--cache", "cache", "--source-repo", "http://" + host}, false},
			{"the name of a repository", []string{"--lock", good.LockFile, "--cache", "cache", "--source-repo", missing}, false},
			{"a lock", []string{"--lock", spoiled}, false},
		},
		"github":       {{"a command", []string{wipes}, false}},
		"github issue": {{"GitHub", []string{"--title", wipes, wipes}, false}},
		"plan": {
			{"a lock", []string{"--lock", spoiled}, false},
			{"the name of a lock", []string{"--lock", missing}, false},
		},
		"size": {
			{"a registry", []string{ref}, false},
			{"the platforms of a layout", []string{"--platform", "linux/riscv64", platforms}, false},
			{"the name of a layout", []string{missing}, false},
			{"the name of a layout to compare with", []string{"--against", missing, good.Dir}, false},
			{"a lock", []string{"--table", "--lock", spoiled}, false},
		},
		"cache": {{"a command", []string{wipes}, false}},
		"cache prune": {
			{"the name of a cache", []string{"--all", "--cache", "pruned" + wipes}, false},
			{"a lock", []string{"--lock", spoiled}, false},
		},
		"version":    {{"an argument", []string{wipes}, false}},
		"completion": {{"a shell", []string{wipes}, false}},
	}

	var names []string
	var look func(c *cobra.Command, path []string)
	look = func(c *cobra.Command, path []string) {
		name := strings.Join(path, " ")
		names = append(names, name)
		if len(rows[name]) == 0 {
			t.Errorf("no row for build %s: what strangers can say in it?", name)
		}
		for _, sub := range c.Commands() {
			look(sub, append(slices.Clone(path), sub.Name()))
		}
	}
	look(standard().commands(io.Discard, io.Discard), nil)
	n := 0
	for _, name := range names {
		for _, row := range append(rows[name], row{"a flag", []string{"--" + wipes}, false}) {
			n++
			t.Run(strings.TrimSpace(name+": "+row.what), func(t *testing.T) {
				args := append(strings.Fields(name), row.args...)
				var stdout, stderr bytes.Buffer
				run(t.Context(), args, &stdout, &stderr)
				said := stdout.String() + stderr.String()
				if at := raw.FindStringIndex(said); at != nil {
					t.Errorf("%q reaches the terminal, in %q", said[at[0]:at[1]], said)
				}
				if visible.MatchString(said) == row.silent {
					t.Errorf("what a stranger says is shown: %v, want %v, in\n%s", row.silent, !row.silent, said)
				}
				if slices.Contains(args, "--json") && !json.Valid(stdout.Bytes()) {
					t.Errorf("no JSON: %s", &stdout)
				}
			})
		}
	}
	t.Logf("%d rows for %d commands", n, len(names))
}

// hostileLayouts are layouts in which a stranger has a word: in the claims of the image, and
// in the names of platforms.
func hostileLayouts(t *testing.T, good *registrytest.Release) map[string]string {
	t.Helper()
	opened, err := image.Open(good.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	top, err := opened.Index(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := top.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	claims := imagetest.Config(t, img, func(c *image.ConfigFile) {
		for name := range c.Config.Labels {
			c.Config.Labels[name] = wipes
		}
		c.Author, c.Architecture = wipes, wipes
	})
	dirs := map[string]string{}
	for name, add := range map[string]mutate.IndexAddendum{
		"claims": {Add: imagetest.Annotate(t, claims, wipes, wipes), Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}, Annotations: map[string]string{wipes: wipes}}},
		"platforms": {Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: wipes, Variant: wipes}}},
	} {
		dirs[name] = filepath.Join(t.TempDir(), name)
		if _, err := image.WriteLayout(dirs[name], "test", mutate.AppendManifests(mutate.IndexMediaType(empty.Index, list.MediaType), add), false); err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}
