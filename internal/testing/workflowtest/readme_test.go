package workflowtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// hubLimit is how many bytes of a description Docker Hub takes; the action that
// description.yml uses cuts off what is more.
// Source: https://github.com/peter-evans/dockerhub-description#content-limits.
const hubLimit = 25000

func TestREADMEFitsDockerHub(t *testing.T) {
	if size := len(read(t, "../../../README.md")); size > hubLimit {
		t.Errorf("README.md has %d bytes, and Docker Hub takes %d: move a part of it to docs/", size, hubLimit)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noWord  = regexp.MustCompile(`[^\pL\pN _-]`)
)

// TestLinks guards that what a document links to in this repository is there, the
// heading too.
func TestLinks(t *testing.T) {
	documents, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(documents, "../../../README.md") {
		for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			found++
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			} else if anchor != "" && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s: no such heading", name, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d links: the test tested less than it means to", found)
	}
}

// identities are lines for cosign that verify who signed: with its arguments, up to the
// end of the command or of what a variable of the shell has.
var (
	identities = regexp.MustCompile(`--certificate-identity[ =](\S+)`)
	names      = regexp.MustCompile(`--identity[ =](\S+)`)
)

// TestSignerLines guards against a documented command that trusts a stranger: cosign with
// the identity of a certificate, and without the repository of the run.
func TestSignerLines(t *testing.T) {
	documents, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(documents, "../../../README.md") {
		for _, block := range strings.Split(read(t, name), "```") {
			for _, m := range identities.FindAllStringSubmatch(block, -1) {
				found++
				repository, ref := runOf(m[1])
				for flag, want := range map[string]string{"--certificate-github-workflow-repository": repository, "--certificate-github-workflow-ref": ref} {
					if !regexp.MustCompile(flag + `[ =]` + regexp.QuoteMeta(want) + `['\s]`).MatchString(block) {
						t.Errorf("%s: cosign looks for %s, and not for %s %s", name, m[1], flag, want)
					}
				}
			}
			// What is no workflow would be refused.
			for _, m := range names.FindAllStringSubmatch(block, -1) {
				if repository, ref := runOf(m[1]); repository == "" || ref == "" {
					t.Errorf("%s: --identity %s is no workflow", name, m[1])
				}
			}
			if strings.Contains(block, "--certificate-identity-regexp") {
				t.Errorf("%s: an identity that is a pattern", name)
			}
		}
	}
	if found == 0 {
		t.Error("no line for cosign: the test tested nothing")
	}
}

// runOf is the repository and the ref of a workflow's URI.
func runOf(identity string) (repository, ref string) {
	workflow, ref, _ := strings.Cut(strings.TrimRight(identity, "'\"\\"), "@")
	repository, _, _ = strings.Cut(strings.TrimPrefix(workflow, "https://github.com/"), "/.github/workflows/")
	return repository, ref
}

// anchors are the names under which GitHub links to headings.
func anchors(markdown string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(markdown, -1) {
		words := noWord.ReplaceAllString(strings.ToLower(m[1]), "")
		found[strings.ReplaceAll(words, " ", "-")] = true
	}
	return found
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
