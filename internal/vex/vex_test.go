package vex

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	openvex "github.com/openvex/go-vex/pkg/vex"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
)

const (
	config = `{"config":{"protocol_version":"v1.0.0","scanner_name":"govulncheck","db_last_modified":"2026-08-21T00:00:00Z","go_version":"go1.26.8","scan_level":"symbol","scan_mode":"source"}}`
	sbom   = `{"SBOM":{"go_version":"go1.26.8","modules":[{"path":"tailscale.com","version":"v1.102.3"}],"roots":["tailscale.com/cmd/derper"]}}`
)

// osv is an entry as govulncheck prints it.
func osv(id, module, imports string) string {
	return fmt.Sprintf(`{"osv":{"id":%q,"aliases":["GHSA-x","CVE-x"],"summary":"What %[1]s is","affected":[{"package":{"name":%q},"ecosystem_specific":{"imports":[%s]}}]}}`, id, module, imports)
}

// finding is one as govulncheck prints it: at is a package and a function, or less.
func finding(id, module, version, fixed string, at ...string) string {
	frame := map[string]string{"module": module, "version": version}
	for i, value := range at {
		frame[[]string{"package", "function"}[i]] = value
	}
	line, _ := json.Marshal(map[string]any{"finding": map[string]any{"osv": id, "fixed_version": fixed, "trace": []any{frame}}})
	return string(line)
}

func scanOf(t *testing.T, program string, lines ...string) *Scan {
	t.Helper()
	s, err := parse(strings.NewReader(strings.Join(append([]string{config, sbom}, lines...), "\n")), "go1.26.8", "tailscale.com/cmd/derper")
	if err != nil {
		t.Fatal(err)
	}
	s.Program = program
	return s
}

// inputs are those of an image of three platforms.
func inputs() lock.Inputs {
	return lock.Inputs{
		Source:    "https://example.com/derper",
		Platforms: []lock.Platform{"linux/amd64", "linux/arm64", "linux/ppc64le"},
		Variants:  []lock.Variant{{Name: lock.Default}},
	}
}

// subjects are an index and its images.
func subjects() []attest.Subject {
	var list []attest.Subject
	for i, p := range append([]lock.Platform{""}, inputs().Platforms...) {
		list = append(list, attest.Subject{Platform: p, Descriptor: v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(string(rune('a'+i)), 64)}}})
	}
	return list
}

// document is a report's document about an image in two repositories.
func document(t *testing.T, r *Report) *openvex.VEX {
	t.Helper()
	data, err := r.Document(subjects(), []string{"docker.io/someone/derper", "ghcr.io/someone/derper"})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openvex.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// ask is how a scanner asks: an image's platform, "" for the index, an ID, a module's package
// URL. The answer is empty if there is none.
func ask(t *testing.T, doc *openvex.VEX, p lock.Platform, id, component string) string {
	t.Helper()
	var answer string
	for _, repository := range []string{"index.docker.io%2Fsomeone%2Fderper", "ghcr.io%2Fsomeone%2Fderper"} {
		for _, s := range subjects() {
			if s.Platform != p {
				continue
			}
			product := "pkg:oci/derper@" + strings.Replace(s.Descriptor.Digest.String(), ":", "%3A", 1) + "?arch=amd64&repository_url=" + repository
			var got []string
			for _, s := range doc.Matches(id, product, []string{component}) {
				got = append(got, strings.TrimSpace(string(s.Status)+" "+string(s.Justification)+s.ActionStatement))
			}
			if text := strings.Join(got, " | "); answer != "" && text != answer {
				t.Errorf("%s: %q in one repository, %q in another", id, answer, text)
			} else {
				answer = text
			}
		}
	}
	return answer
}

// TestDocument guards against a document in which scanners do not find what was found, or find
// something else: they ask by the IDs of other databases, and by their own package URLs.
func TestDocument(t *testing.T) {
	const (
		none, net, other = "pkg:golang/example.com/none@v1.0.0", "pkg:golang/golang.org/x/net@v0.50.0", "pkg:golang/golang.org/x/net@v0.51.0"
		trivys, ours     = "pkg:golang/stdlib@v1.26.8", "pkg:golang/stdlib@1.26.8"
	)
	derper := scanOf(t, "derper",
		osv("GO-1", Stdlib, `{"path":"net/http"}`), finding("GO-1", Stdlib, "v1.26.8", "v1.26.9"),
		finding("GO-1", Stdlib, "v1.26.8", "v1.26.9", "net/http"), finding("GO-1", Stdlib, "v1.26.8", "v1.26.9", "net/http", "Get"),
		osv("GO-2", "golang.org/x/net", ``), finding("GO-2", "golang.org/x/net", "v0.50.0", "v0.51.0", "golang.org/x/net/html"), finding("GO-2", "golang.org/x/net", "v0.50.0", "v0.51.0"),
		osv("GO-3", "golang.org/x/net", ``), finding("GO-3", "golang.org/x/net", "v0.50.0", ""),
		osv("GO-4", "golang.org/x/net", ``), // concerns other versions
		osv("GO-5", Stdlib, ``), finding("GO-5", Stdlib, "v1.26.8", "v1.27.1", "os", "Open"),
	)
	tailscaled := scanOf(t, "tailscaled",
		osv("GO-2", "golang.org/x/net", ``), finding("GO-2", "golang.org/x/net", "v0.50.0", "v0.51.0", "golang.org/x/net/html", "Parse"),
		osv("GO-1", Stdlib, ``), finding("GO-1", Stdlib, "v1.26.8", "v1.26.9"),
	)
	r := NewReport(inputs(), derper, tailscaled)
	doc := document(t, r)
	const notPresent, notReached = "not_affected vulnerable_code_not_present", "not_affected vulnerable_code_not_in_execute_path"
	for _, test := range []struct {
		id, component, want string
	}{
		{"GO-1", trivys, "affected fixed in go1.26.9: the next revision has it"},
		{"GO-1", ours, "affected fixed in go1.26.9: the next revision has it"},
		{"GO-1", net, ""},
		{"GO-2", net, "affected fixed in golang.org/x/net v0.51.0: upstream's to take"}, // one program calls it
		{"GO-2", other, ""},
		{"GO-3", net, notPresent},
		{"GO-4", net, ""},
		{"GO-5", trivys, "affected fixed in go1.27.1: upstream's to take"},
		{"CVE-unknown", none, ""},
	} {
		for _, p := range append([]lock.Platform{""}, inputs().Platforms...) {
			if got := ask(t, doc, p, test.id, test.component); got != test.want {
				t.Errorf("%s of %s on %q: %q, want %q", test.id, test.component, p, got, test.want)
			}
		}
	}
	if got := ask(t, document(t, NewReport(inputs(), derper)), "", "GO-2", net); got != notReached {
		t.Errorf("where no program calls it: %q, want %q", got, notReached)
	}
	first := doc.Statements[0]
	if v := first.Vulnerability; v.ID != "https://pkg.go.dev/vuln/GO-1" || v.Description != "What GO-1 is" || !slices.Equal(v.Aliases, []openvex.VulnerabilityID{"CVE-x", "GHSA-x"}) {
		t.Errorf("the vulnerability is %+v", v)
	}
	if want := "linux/amd64: called in derper; not imported in tailscaled"; first.StatusNotes != want {
		t.Errorf("notes: %q, want %q", first.StatusNotes, want)
	}
	if doc.Context != "https://openvex.dev/ns/v0.2.0" || doc.Author != "https://example.com/derper" || !doc.Timestamp.Equal(r.Modified) {
		t.Errorf("the document begins with %+v", doc.Metadata)
	}
	if got := ask(t, doc, "", "CVE-x", trivys); !strings.HasPrefix(got, "affected ") {
		t.Errorf("by an alias: %q", got)
	}
}

// TestArchitectures guards against an image that is said not to be affected on the ground of
// the call graph of another architecture.
func TestArchitectures(t *testing.T) {
	const module, purl = "example.com/m", "pkg:golang/example.com/m@v1.0.0"
	const affected = "affected fixed in example.com/m v1.1.0: upstream's to take"
	const notPresent, notReached = "not_affected vulnerable_code_not_present", "not_affected vulnerable_code_not_in_execute_path"
	for _, test := range []struct {
		name, imports                   string
		at                              []string
		index, amd64, arm64, ppc64le, n string
	}{
		{"another, linked", `{"path":"example.com/m/p","goarch":["ppc64le"]}`, nil, affected, notPresent, notPresent, affected, "; only vulnerable on ppc64le"},
		{"another, imported", `{"path":"example.com/m/p","goarch":["ppc64le"]}`, []string{"p"}, affected, notPresent, notPresent, affected, "; only vulnerable on ppc64le"},
		{"some, imported", `{"path":"example.com/m/p","goarch":["amd64","arm64"]}`, []string{"p"}, notReached, notReached, notReached, notPresent, "; only vulnerable on amd64, arm64"},
		{"some, called", `{"path":"example.com/m/p","goarch":["arm64","amd64"],"goos":["linux"]}`, []string{"p", "F"}, affected, affected, affected, notPresent, "; only vulnerable on amd64, arm64"},
		{"none, called", `{"path":"example.com/m/p"},{"path":"example.com/m/q","goarch":["ppc64le"]}`, []string{"p", "F"}, affected, affected, affected, affected, ""},
		{"another system", `{"path":"example.com/m/p","goos":["windows","darwin"]}`, []string{"p"}, notPresent, notPresent, notPresent, notPresent, ""},
		{"none built", `{"path":"example.com/m/p","goarch":["wasm"]}`, []string{"p"}, notPresent, notPresent, notPresent, notPresent, "; only vulnerable on wasm"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewReport(inputs(), scanOf(t, "derper", osv("GO-1", module, test.imports), finding("GO-1", module, "v1.0.0", "v1.1.0", test.at...)))
			doc := document(t, r)
			for p, want := range map[lock.Platform]string{"": test.index, "linux/amd64": test.amd64, "linux/arm64": test.arm64, "linux/ppc64le": test.ppc64le} {
				if got := ask(t, doc, p, "GO-1", purl); got != want {
					t.Errorf("%q: %q, want %q", p, got, want)
				}
			}
			if notes := doc.Statements[0].StatusNotes; !strings.HasSuffix(notes, "derper"+test.n) {
				t.Errorf("notes: %q, want them to end in %q", notes, test.n)
			}
			if s := r.Summary(); (s.NotAffected == 0) != (test.index == affected) || len(s.Upstream) != 1-s.NotAffected {
				t.Errorf("summary %+v", s)
			}
		})
	}
}

// TestSummary guards against release notes that promise a fix from somebody who does not have
// it.
func TestSummary(t *testing.T) {
	called := func(id, module, version, fixed string) []string {
		return []string{osv(id, module, ``), finding(id, module, version, fixed, "p", "F")}
	}
	derper := scanOf(t, "derper", slices.Concat(
		called("GO-1", Stdlib, "v1.26.8", "v1.26.10"), called("GO-2", Stdlib, "v1.26.8", "v1.26.9"), called("GO-3", Stdlib, "v1.26.8", "v1.27.1"),
		called("GO-4", Stdlib, "v1.26.8", ""), called("GO-5", "golang.org/x/sys", "v0.1.0", "v0.2.0"),
		[]string{osv("GO-6", "golang.org/x/sys", ``), finding("GO-6", "golang.org/x/sys", "v0.1.0", "v0.2.0")})...)
	tools := scanOf(t, "tools", slices.Concat(
		called("GO-1", Stdlib, "v1.26.8", "v1.26.10"), called("GO-5", "golang.org/x/sys", "v0.1.0", "v0.2.0"),
		called("GO-6", "golang.org/x/sys", "v0.1.0", "v0.2.0"), called("GO-7", "mvdan.cc/sh/v3", "v3.0.0", "v3.1.0"),
		[]string{osv("GO-8", "mvdan.cc/sh/v3", ``), finding("GO-8", "mvdan.cc/sh/v3", "v3.0.0", "")})...)
	tools.Own = true
	tools.Modified = tools.Modified.AddDate(0, 0, 1) // the database was changed between the scans
	r := NewReport(inputs(), tools, derper)
	s := r.Summary()
	ids := func(list []Advisory) (text string) {
		for _, a := range list {
			text += a.ID + " "
		}
		return text
	}
	got := fmt.Sprintf("go %s %s| upstream %s| project %s| not %d", s.Go, ids(s.NewerGo), ids(s.Upstream), ids(s.Project), s.NotAffected)
	if want := "go go1.26.10 GO-1 GO-2 | upstream GO-3 GO-4 GO-5 | project GO-6 GO-7 | not 1"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if !s.Database.Equal(derper.Modified) {
		t.Errorf("the database is of %v, before the first scan it was of %v", s.Database, derper.Modified)
	}
	doc := document(t, r)
	for component, want := range map[string]string{
		"pkg:golang/golang.org/x/sys@v0.1.0": "affected fixed in golang.org/x/sys v0.2.0: the next revision has it",
		"pkg:golang/mvdan.cc/sh/v3@v3.0.0":   "",
	} {
		if got := ask(t, doc, "", "GO-6", component); got != want {
			t.Errorf("GO-6 of %s: %q, want %q", component, got, want)
		}
	}
	if got := ask(t, doc, "", "GO-4", "pkg:golang/stdlib@v1.26.8"); got != "affected no version of stdlib has a fix" {
		t.Errorf("without a fix: %q", got)
	}
}

// TestDeterministic guards against a document that depends on the order of scans or of
// govulncheck's messages, which it does not promise, or that has the ID of another one.
func TestDeterministic(t *testing.T) {
	lines := []string{
		osv("GO-1", Stdlib, ``), finding("GO-1", Stdlib, "v1.26.8", "v1.26.9", "net/http", "Get"), finding("GO-1", Stdlib, "v1.26.8", "v1.26.9"),
		osv("GO-2", "golang.org/x/net", ``), finding("GO-2", "golang.org/x/net", "v0.50.0", "v0.51.0"),
	}
	bytesOf := func(scans ...*Scan) []byte {
		t.Helper()
		data, err := NewReport(inputs(), scans...).Document(subjects(), []string{"ghcr.io/someone/derper"})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	want := bytesOf(scanOf(t, "derper", lines...), scanOf(t, "tailscaled", lines...))
	slices.Reverse(lines)
	if got := bytesOf(scanOf(t, "tailscaled", lines...), scanOf(t, "derper", lines...)); !bytes.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	id := func(data []byte) string {
		doc, err := openvex.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return doc.ID
	}
	if got := id(want); !strings.HasPrefix(got, "https://example.com/derper/openvex/sha256/") || got == id(bytesOf(scanOf(t, "derper", lines...))) {
		t.Errorf("the ID %s is no address, or that of another document, too", got)
	}
	// Without findings it is a document, too.
	if doc, err := openvex.Parse(bytesOf(scanOf(t, "derper"))); err != nil || doc.Statements == nil {
		t.Errorf("without findings: %+v, %v", doc, err)
	}
}

// TestStatement guards against a form in which scanners do not look for documents.
func TestStatement(t *testing.T) {
	in := inputs()
	in.Tailscale.Version = "v1.102.3"
	r := NewReport(in, scanOf(t, "derper", osv("GO-1", Stdlib, ``), finding("GO-1", Stdlib, "v1.26.8", "v1.26.9")))
	s, err := r.Statement(subjects(), []string{"ghcr.io/someone/derper"})
	if err != nil {
		t.Fatal(err)
	}
	var statement struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
		Subject       []struct{ Digest map[string]string }
		Predicate     openvex.VEX
	}
	if err := json.Unmarshal(s.Payload, &statement); err != nil {
		t.Fatal(err)
	}
	if s.Type != openvex.TypeURI || statement.PredicateType != s.Type || statement.Type != "https://in-toto.io/Statement/v1" || len(statement.Predicate.Statements) != 1 {
		t.Errorf("%s", s.Payload)
	}
	if len(s.Subjects) != len(subjects()) || len(statement.Subject) != len(s.Subjects) {
		t.Errorf("it is attached to %d digests and about %d, want the index and all images", len(s.Subjects), len(statement.Subject))
	}
	if _, err := r.Statement(subjects(), []string{"no repository"}); err == nil {
		t.Error("a repository that is none")
	}
}

// TestParseRefuses guards against a scan that is believed though govulncheck did not look at
// what was built.
func TestParseRefuses(t *testing.T) {
	for name, test := range map[string]struct{ output, want string }{
		"nothing":                 {"", "it looked at"},
		"not to its end":          {config + sbom + `{"osv":{"id":`, "unexpected EOF"},
		"another Go":              {strings.Replace(config, "go1.26.8", "go1.25.3", 1) + sbom, `it looked at the standard library of "go1.25.3", the lock has go1.26.8`},
		"another level":           {strings.Replace(config, "symbol", "module", 1) + sbom, `level "module"`},
		"another protocol":        {strings.Replace(config, "v1.0.0", "v2.0.0", 1) + sbom, `the protocol "v2.0.0"`},
		"an undated database":     {strings.Replace(config, `"db_last_modified":"2026-08-21T00:00:00Z",`, "", 1) + sbom, "index/db.json"},
		"another package":         {config + strings.Replace(sbom, "cmd/derper", "cmd/stunc", 1), "expected tailscale.com/cmd/derper"},
		"it does not begin to":    {config, "it looked at []"},
		"an unexplained advisory": {config + sbom + finding("GO-1", Stdlib, "v1.26.8", ""), "it does not say what GO-1 is"},
	} {
		if s, err := parse(strings.NewReader(test.output), "go1.26.8", "tailscale.com/cmd/derper"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, %v; want %q", name, s, err, test.want)
		}
	}
}
