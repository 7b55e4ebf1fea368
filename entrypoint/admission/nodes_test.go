package admission

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// A logbook takes what is logged.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logbook) logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// take returns what came since the last time.
func (l *logbook) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

func (l *logbook) want(t *testing.T, want ...string) {
	t.Helper()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("log %q\nwant %q", got, want)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// age makes a file one that was not written just now.
func age(t *testing.T, path string, by time.Duration) {
	t.Helper()
	when := time.Now().Add(-by)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
}

// admit asks as derper does, with its types.
func admit(t *testing.T, url string, k key.NodePublic) bool {
	t.Helper()
	body, err := json.Marshal(&tailcfg.DERPAdmitClientRequest{NodePublic: k, Source: netip.MustParseAddr("198.51.100.7")})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(url, "", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer tailcfg.DERPAdmitClientResponse
	if err := json.NewDecoder(io.LimitReader(res.Body, 4<<10)).Decode(&answer); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %v", res.Status, err)
	}
	return answer.Allow
}

func newKey() key.NodePublic { return key.NewNode().Public() }

// The mistake it guards: a list that lets in others than those in it, or that
// derper cannot ask.
func TestNodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	known, alsoKnown, stranger := newKey(), newKey(), newKey()
	write(t, path, "\ufeff# nodes\r\n\r\n"+known.String()+"\r\n  "+alsoKnown.String()+" # phone\n#"+stranger.String()+"\n"+known.String())
	var l logbook
	n := NewNodes(path, l.logf)
	l.want(t, "VERIFY_NODES: 2 nodes")
	url, err := n.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if !admit(t, url, known) || !admit(t, url, alsoKnown) {
		t.Error("a node of the list is not let in")
	}
	l.want(t)
	for range 3 {
		if admit(t, url, stranger) {
			t.Error("a stranger is let in")
		}
	}
	l.want(t, "not in the file of VERIFY_NODES: "+stranger.String()+" from 198.51.100.7; to let it in, add it there")
	if err := n.Err(); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := http.Post(url, "", nil); err == nil {
		t.Error("it answers after Close")
	}
}

// The mistake it guards: whoever is on the same machine finds the answers by
// accident, or makes the entrypoint fail.
func TestNodesAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	known := newKey()
	write(t, path, known.String())
	n := NewNodes(path, t.Logf)
	url, err := n.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	base := url[:strings.LastIndex(url, "/")]
	if !strings.HasPrefix(base, "http://127.0.0.1:") || len(url)-len(base) != 33 {
		t.Errorf("the URL is %s", url)
	}
	good := `{"NodePublic":"` + known.String() + `","Source":""}`
	for _, test := range []struct {
		method, url, body string
		status            int
	}{
		{"POST", url, good, 200},
		{"POST", url, `{"NodePublic":"` + known.String() + `","Source":"fe80::1%eth0","More":[1]}`, 200},
		{"GET", url, "", 405},
		{"POST", base + "/", good, 404},
		{"POST", url + "/x", good, 404},
		{"POST", url, "", 400},
		{"POST", url, "[]", 400},
		{"POST", url, `{"NodePublic":"nodekey:00"}`, 400},
		{"POST", url, `{"NodePublic":"` + strings.Repeat("x", 5000) + `"}`, 400},
		{"POST", url, `{"NodePublic":"` + key.NodePublic{}.String() + `"}`, 400},
	} {
		req, err := http.NewRequest(test.method, test.url, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != test.status {
			t.Errorf("%s %s %.60s: %s: %s", test.method, test.url, test.body, res.Status, body)
		}
	}
}

// The mistake it guards: a change that counts after a restart only, or is read
// for each client.
func TestNodesChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nodes")
	a, b := newKey(), newKey()
	var l logbook
	n := NewNodes(path, l.logf)
	missing := "there is no file " + path + "; mount it there, with a node key in each line"
	l.want(t, "NO CLIENT IS LET IN: VERIFY_NODES: "+missing)
	url := httptest.NewServer(n.Handler())
	defer url.Close()
	if admit(t, url.URL, a) {
		t.Error("let in without a file")
	}
	if err := n.Err(); err == nil || err.Error() != missing {
		t.Error(err)
	}
	l.take()

	write(t, path, a.String()+"\n")
	if !admit(t, url.URL, a) || admit(t, url.URL, b) || n.Err() != nil {
		t.Error("the new file does not count")
	}
	l.want(t, "VERIFY_NODES: 1 node", "not in the file of VERIFY_NODES: "+b.String()+" from 198.51.100.7; to let it in, add it there")

	// Of the same size, and maybe at the same time.
	for range 10 {
		write(t, path, b.String()+"\n")
		if !admit(t, url.URL, b) {
			t.Fatal("what was written just after it was read does not count")
		}
		write(t, path, a.String()+"\n")
		if !admit(t, url.URL, a) {
			t.Fatal("what was written just after it was read does not count")
		}
	}
	l.take()

	// An old file is not read while it stays the same.
	age(t, path, time.Hour)
	n.Err()
	kept := n.list.keys
	for range 3 {
		admit(t, url.URL, a)
	}
	if fmt.Sprintf("%p", kept) != fmt.Sprintf("%p", n.list.keys) {
		t.Error("it was read again")
	}

	write(t, path, "# nobody\n")
	if admit(t, url.URL, a) {
		t.Error("let in by an empty list")
	}
	empty := "no node key is in " + path + "; add one in each line, like nodekey:… (PublicKey in tailscale status --json)"
	if err := n.Err(); err == nil || err.Error() != empty {
		t.Error(err)
	}
	if got := l.take(); !slices.Contains(got, "NO CLIENT IS LET IN: VERIFY_NODES: "+empty) {
		t.Errorf("log %q", got)
	}
	admit(t, url.URL, a)
	l.want(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	admit(t, url.URL, a)
	l.want(t, "NO CLIENT IS LET IN: VERIFY_NODES: "+missing)
}

// The mistake it guards: a ConfigMap of Kubernetes, whose file never changes:
// a link above it does.
func TestNodesSwapped(t *testing.T) {
	dir := t.TempDir()
	a, b := newKey(), newKey()
	when := time.Now().Add(-time.Hour)
	for name, k := range map[string]key.NodePublic{"..v1": a, "..v2": b} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name, "nodes")
		write(t, path, k.String()+"\n")
		if err := os.Chtimes(path, when, when); err != nil { // the same time, the same size
			t.Fatal(err)
		}
	}
	link := func(target string) {
		t.Helper()
		next := filepath.Join(dir, "..next")
		if err := os.Symlink(target, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("..v1")
	if err := os.Symlink("..data/nodes", filepath.Join(dir, "nodes")); err != nil {
		t.Fatal(err)
	}
	n := NewNodes(filepath.Join(dir, "nodes"), t.Logf)
	server := httptest.NewServer(n.Handler())
	defer server.Close()
	if !admit(t, server.URL, a) || admit(t, server.URL, b) {
		t.Error("the first version does not count")
	}
	link("..v2")
	if admit(t, server.URL, a) || !admit(t, server.URL, b) {
		t.Error("the second version does not count")
	}
}

// The mistake it guards: a typo that makes all others strangers, that is
// reported at each client, or with what may be a secret.
func TestNodesBadLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	known := newKey()
	bad := []string{known.String()[:70], "privkey:s3cr3t", known.String() + " phone", strings.ToUpper(known.String()), key.NodePublic{}.String()}
	write(t, path, "# x\n"+strings.Join(bad, "\n")+"\n"+known.String()+"\n")
	age(t, path, time.Hour)
	var l logbook
	n := NewNodes(path, l.logf)
	var want []string
	for i := range bad {
		want = append(want, fmt.Sprintf("warning: VERIFY_NODES: %s, line %d: is no node key, which is nodekey: and 64 hexadecimal digits", path, i+2))
	}
	l.want(t, append(want, "VERIFY_NODES: 1 node")...)
	if n.Err() != nil {
		t.Error(n.Err())
	}
	l.want(t)
	write(t, path, strings.Repeat("x\n", 1000))
	n.Err()
	got := l.take()
	if len(got) != maxComplaints+2 || got[maxComplaints] != "warning: VERIFY_NODES: "+path+": 990 more lines are no node keys" {
		t.Errorf("log %q", got)
	}
}

// The mistake it guards: a path that is no file of text, and a start that
// hangs on it or takes it for an empty list.
func TestNodesNoFile(t *testing.T) {
	dir := t.TempDir()
	long, large := filepath.Join(dir, "long"), filepath.Join(dir, "large")
	write(t, long, strings.Repeat("x", maxLine+1))
	write(t, large, "")
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                       dir + ": is a folder; name a file in it",
		long:                      long + ": line 1 is longer than 65536 bytes; put one node key in each line",
		large:                     large + ": is larger than 8 MiB",
		os.DevNull:                os.DevNull + ": is no regular file",
		filepath.Join(long, "in"): long + "/in: not a directory",
	} {
		if err := NewNodes(path, t.Logf).Err(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// The mistake it guards: a log that one stranger, or very many, fill.
func TestNodesStrangers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes")
	var l logbook
	n := NewNodes(path, l.logf)
	now := time.Now()
	n.now = func() time.Time { return now }
	l.take()
	stranger := func(i int) nodeKey { return nodeKey{0: 1, 1: byte(i), 2: byte(i >> 8)} }
	ask := func(from, to int) int {
		t.Helper()
		for i := from; i < to; i++ {
			if n.allow(stranger(i), netip.Addr{}) {
				t.Fatal("let in")
			}
		}
		return len(l.take())
	}
	if got := ask(0, maxStrangers); got != maxStrangers {
		t.Errorf("%d lines about %d", got, maxStrangers)
	}
	if got := ask(0, maxStrangers); got != 0 {
		t.Errorf("%d lines about those that are known", got)
	}
	if got := ask(maxStrangers, 3*maxStrangers); got != 1 || len(n.strangers) != maxStrangers {
		t.Errorf("%d lines about more, %d remembered", got, len(n.strangers))
	}
	now = now.Add(59 * time.Minute)
	ask(0, 3*maxStrangers)
	now = now.Add(time.Minute)
	if got := ask(0, 1); got != 1 {
		t.Errorf("%d lines about one after an hour", got)
	}
	if ask(1, maxStrangers) != maxStrangers-1 {
		t.Error("not each is logged again after an hour")
	}
	n.allow(stranger(maxStrangers+1), netip.Addr{})
	l.want(t, fmt.Sprintf("VERIFY_NODES: more than 1024 unknown nodes within an hour; the rest is not named, and asked %d times since it was last said", 4*maxStrangers))
}
