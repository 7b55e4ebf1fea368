package main

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/hostile"
)

var rewriteTable = flag.Bool("table", false, "let TestAttacks and TestVariablesPage write their pages")

const attacksFile = "../../docs/attacks.md"

// An encounter is a row: one attack and one command that meets it.
type encounter struct {
	kind, attack, command string
	harmless              string // why it may pass, "" for what must not
	meet                  func(t *testing.T) met
}

// met is what a command said.
type met struct {
	code           int
	stdout, stderr string
	hide           []string // from what is shown: paths
}

// TestAttacks lets every attack meet the commands that it is made for, and compares what
// they say with docs/attacks.md. With -table it writes that file.
//
// The mistake it guards: a wrong image, registry, relay, certificate or document that
// passes, and one that is refused with words that do not say why.
func TestAttacks(t *testing.T) {
	w := newHostileWorld(t)
	rows := slices.Concat(w.images(), w.revisions(t), w.signatures(t), modules(t), upstreams(t), locks(w), relays(t))
	cells := make([]string, len(rows))
	// Most compare; some wait for what does not come.
	working, waiting := make(chan bool, 3), make(chan bool, 24)
	var wg sync.WaitGroup
	for i, r := range rows {
		busy := working
		if r.kind == "Registries" || r.kind == "Relays" {
			busy = waiting
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			busy <- true
			defer func() { <-busy }()
			t.Run(r.kind+"/"+r.attack+"/"+r.command, func(t *testing.T) { cells[i] = r.cell(t, w.release.Inputs) })
		}()
	}
	wg.Wait()
	var page strings.Builder
	page.WriteString(attacksHead)
	seen := map[string]bool{}
	for i, r := range rows {
		if i == 0 || r.kind != rows[i-1].kind {
			fmt.Fprintf(&page, "\n## %s\n\n| attack | command | verdict | what it says |\n|---|---|---|---|\n", r.kind)
		}
		if key := r.kind + r.attack + r.command; seen[key] {
			t.Errorf("%s, %s: twice in the table", r.attack, r.command)
		} else {
			seen[key] = true
		}
		page.WriteString(cells[i] + "\n")
	}
	fmt.Fprintf(&page, "\n%d attacks and commands.\n", len(rows))
	t.Logf("%d rows", len(rows))
	if len(rows) < 160 {
		t.Errorf("only %d rows: something is left out", len(rows))
	}
	if *rewriteTable {
		if err := os.WriteFile(attacksFile, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	doc, err := os.ReadFile(attacksFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(page.String()) {
		if !bytes.Contains(doc, []byte(line)) {
			t.Errorf("docs/attacks.md lacks this line; look whether it should, and write it with -table:\n%s", line)
		}
	}
	if len(doc) != page.Len() && !t.Failed() {
		t.Error("docs/attacks.md has more than what was tested; write it with -table")
	}
}

const attacksHead = `# Attacks

Each row is an attack, a command that reads it, and what the command says. One test carries out all of
them: ` + "`go test ./cmd/build -run TestAttacks`" + `; with ` + "`-table`" + ` it writes this page. The good image, out of which each is made, passes. An
attack that may pass is marked as harmless, with the reason.

The verdict is the exit code: *refused* is 1, *differs* is 3, *wrong arguments* is 2, *passes* is 0. Digests, addresses, sizes
and versions are left out of the words.
`

// verdicts are the exit codes in words.
var verdicts = map[int]string{cli.ExitOK: "passes", cli.ExitFailed: "refused", cli.ExitUsage: "wrong arguments", cli.ExitDiffers: "differs"}

// varying are attacks whose answer is one of several, since what meets them runs at the same
// time; the table has what these have in common.
var varying = map[string]string{
	"a checksum database whose answer is not signed": "checksum database: the record is not in the signed tree",
	"a checksum database that is another's":          "checksum database: note has no verifiable signatures",
	"a lock with another sum of Go":                  "toolchain GO: sum does not match: expected h1:… (lock), got h1:… (checksum database)",
}

// cell carries out a row and is what the table has for it.
func (r encounter) cell(t *testing.T, inputs lock.Inputs) string {
	m := r.meet(t)
	verdict, known := verdicts[m.code]
	switch {
	case !known:
		t.Errorf("exit code %d\n%s%s", m.code, m.stdout, m.stderr)
	case m.code == cli.ExitOK && r.harmless == "":
		t.Errorf("passes\n%s%s", m.stdout, m.stderr)
	case m.code != cli.ExitOK && r.harmless != "":
		t.Errorf("is harmless and does not pass: exit code %d\n%s%s", m.code, m.stdout, m.stderr)
	}
	for _, said := range []string{m.stdout, m.stderr} {
		if i := strings.IndexFunc(said, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f }); i >= 0 {
			t.Errorf("says what steers a terminal: %q", said[max(0, i-40):min(len(said), i+40)])
		}
	}
	words := shownWords(m, inputs)
	if says, ok := varying[r.attack]; ok {
		words = says
	}
	if r.harmless != "" {
		verdict, words = "passes, harmless", r.harmless
	}
	return fmt.Sprintf("| %s | `%s` | %s | %s |", r.attack, r.command, verdict, words)
}

var (
	whyBlock  = regexp.MustCompile(`(?m)^why \(([a-z ]+)\)\n((?:  \S.*\n)+)`)
	firstFail = regexp.MustCompile(`(?m)^fail +(\S+) +\S+  +(.*)$`)
	spaces    = regexp.MustCompile(`\s+`)
	// What is another in each run, or with another release.
	hidden = []struct{ is, becomes string }{
		{regexp.QuoteMeta(os.TempDir()) + `/[^ :,")]*`, "FILE"},
		{`sha(256|512):[0-9a-f]{8,}`, "sha$1:…"},
		{`h([12]):[A-Za-z0-9+/]{43}=`, "h$1:…"},
		{`\b[0-9a-f]{40}\b`, "COMMIT"},
		{`\b([0-9a-f]{64}|[0-9a-f]{24})\b`, "…"},
		{`^(roots|compile [^:]*): `, ""},                          // of the stages that run at the same time, the first that failed
		{"(cannot|unable to) (un)?marshal", "cannot ${2}marshal"}, // go-json-experiment chooses anew in each program
		{`go: downloading \S+ \S+ `, ""},
		{`(127\.0\.0\.\d+|\[::1\]):\d+`, "HOST"},
		{`\b[\d,]+ bytes?\b`, "N bytes"},
		{`, not \d{4,}`, ", not N"},
		{`, \d+ rebuilt`, ", N rebuilt"},
		{`0x[0-9a-f]{3,}`, "0x…"},
		{`\d+ of 1000 packets came: .*`, "N of 1000 packets came"},
		{`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ?`, "TIME"},
	}
)

// shownWords are the words of a verdict for the table: the first explanation, or the error.
func shownWords(m met, in lock.Inputs) string {
	var words string
	if why := whyBlock.FindStringSubmatch(m.stdout); why != nil && m.code != cli.ExitFailed {
		words = why[1] + ": " + why[2]
	} else if fail := firstFail.FindStringSubmatch(m.stdout); fail != nil {
		words = fail[1] + ": " + fail[2]
	} else {
		for line := range strings.Lines(m.stderr) {
			if rest, ok := strings.CutPrefix(line, "build: "); ok {
				words = rest // the last: warnings come before
			} else if !strings.HasPrefix(line, "hint: ") && words != "" {
				words += line
			} else if words != "" {
				break
			}
		}
	}
	for _, name := range m.hide {
		words = strings.ReplaceAll(words, name, "IMAGE")
	}
	words = spaces.ReplaceAllString(strings.TrimSpace(words), " ")
	words = strings.NewReplacer(in.Tailscale.Short(), "VERSION", in.Go.Version, "GO", in.Roots.Version, "ROOTS").Replace(words)
	for _, h := range hidden {
		words = regexp.MustCompile(h.is).ReplaceAllString(words, h.becomes)
	}
	if list := []rune(words); len(list) > 240 {
		words = string(list[:240]) + "…"
	}
	return cmp.Or(strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(words), "")
}

// program runs a command line in this process, with these variables and changes of what
// is around it.
func program(t *testing.T, change func(*env), args ...string) met {
	t.Helper()
	e := standard()
	change(&e)
	var stdout, stderr strings.Builder
	code := e.program().Run(context.WithoutCancel(t.Context()), args, &stdout, &stderr)
	return met{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

// variables are an environment.
func variables(list map[string]string) func(string) string {
	return func(name string) string { return list[name] }
}

// images are the rows of attacks on images and where they are kept.
func (w *hostileWorld) images() (rows []encounter) {
	for _, k := range hostile.Kinds() {
		for _, a := range k.Attacks {
			commands := slices.Clone(a.Commands)
			if len(commands) == 0 {
				commands = []string{"verify"}
			}
			if attested[a.Name] {
				commands = append(commands, "verify --attest")
			}
			for _, name := range commands {
				rows = append(rows, encounter{k.Name, a.Name, name, a.Harmless, func(t *testing.T) met {
					c := a.Content(t, w.good)
					args, source := w.command(t, name, a, c)
					m := program(t, func(e *env) {
						w.around(e)
						e.scratch = scratch(t)
					}, args...)
					m.hide = []string{source}
					if strings.Contains(m.stderr, noCase) {
						t.Error("was opened")
					}
					// A rebuilder's word is there before, and that it differs is attested, too.
					may := strings.Count(name, "--require")
					if m.code == cli.ExitDiffers {
						may += strings.Count(name, "--attest")
					}
					if tags, artifacts := c.Written(); m.code != cli.ExitOK && (len(tags) > 0 || artifacts > may) {
						t.Errorf("is refused, and has left tags %q and %d artifacts", tags, artifacts)
					}
					return m
				}})
			}
		}
	}
	return rows
}

// attested are attacks for which it is also tried whether they can be attested. That takes
// a rebuild from nothing.
var attested = map[string]bool{
	"an image that calls itself an attestation of another platform's": true, "an index in the index": true, "a digest twice, the first bad": true,
}
