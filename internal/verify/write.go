package verify

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	htmltemplate "html/template"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

var (
	//go:embed report.html
	page string
	//go:embed report.txt
	lines string

	functions = template.FuncMap{
		"class": func(v any) string {
			return cmp.Or(map[any]string{Pass: "pass", Verified: "pass", Fail: "fail", Differs: "fail"}[v], "skip")
		},
		"plural": diff.Plural,
		"time":   func(t time.Time) string { return t.Format(time.RFC3339) },
		"wrap":   wrap,
	}
	// htmlReport makes the page of a report. It needs nothing from elsewhere: no script, no
	// font, no image. Everything that came from an image is escaped by html/template.
	htmlReport = htmltemplate.Must(htmltemplate.New("report").Funcs(functions).Parse(page))
	textReport = template.Must(template.New("report").Funcs(functions).Parse(lines))
)

// WriteText writes the report for a terminal: a row for each input and platform, and
// one for each thing in them that did not pass.
func (r *Report) WriteText(w io.Writer) error { return writeText(w, "report", r) }

func writeText(w io.Writer, name string, data any) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if err := textReport.ExecuteTemplate(tw, name, data); err != nil {
		return err
	}
	return tw.Flush()
}

// WriteHTML writes the report as one page that stands for itself.
func (r *Report) WriteHTML(w io.Writer) error { return htmlReport.Execute(w, r) }

// WriteJSON writes the report as one indented JSON value.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// Summary is the whole run in one line.
func (r *Report) Summary() string {
	verified := count(r.Subjects, func(s *Subject) bool { return s.Verdict == Verified })
	took := (time.Duration(r.Seconds*1000) * time.Millisecond).Round(100 * time.Millisecond)
	how := "with a cache that was trusted"
	if r.Fresh {
		how = fmt.Sprintf("built from nothing, %s on disk at most", progress.Bytes(r.DiskBytes))
	}
	return fmt.Sprintf("%d of %d verified in %s, %s", verified, len(r.Subjects), took, how)
}

// Having are the checks that passed, or the others.
func (p *PlatformResult) Having(passed bool) []Check {
	return slices.DeleteFunc(slices.Clone(p.Checks), func(c Check) bool { return (c.Result == Pass) != passed })
}

// Summary is a platform in one line.
func (p *PlatformResult) Summary() string {
	switch p.Result {
	case Pass:
		programs := p.Count(Pass, LevelBinary)
		what := diff.Plural(programs, "program")
		if others := p.files() - programs; others > 0 {
			what += ", " + diff.Plural(others, "other file")
		}
		what = fmt.Sprintf("%s, %s, config", what, diff.Plural(p.Count(Pass, LevelEntry)+programs-p.files(), "layer"))
		if p.Count(Pass, LevelAttestation) > 0 {
			what += ", SBOM, provenance"
		}
		if p.Digest == "" { // a docker archive has no manifest
			return what
		}
		return p.Digest + ": " + what
	case Skip:
		if i := slices.IndexFunc(p.Checks, func(c Check) bool { return c.Result == Skip }); i >= 0 {
			return p.Checks[i].Note
		}
		return "nothing was compared"
	}
	var what []string
	for _, l := range levels {
		// For a reason of their own.
		if n := count(p.Checks, func(c Check) bool { return c.failed() && c.Level == l && !c.Follows }); n > 0 {
			what = append(what, fmt.Sprintf("%s (%d)", l, n))
		}
	}
	return strings.TrimSpace(p.Digest + " differs: " + strings.Join(what, ", "))
}

// files counts what passed of what a container sees in its root: programs, other
// files, folders.
func (p *PlatformResult) files() int {
	return count(p.Checks, func(c Check) bool {
		return c.Result == Pass && (c.Level == LevelBinary || c.Level == LevelEntry && !strings.HasPrefix(c.Name, "layer "))
	})
}

// wrap breaks a text into lines of at most 100 characters, each but the first behind an
// indent, behind which the first stands already.
func wrap(text, indent string) string {
	const width = 100
	var b strings.Builder
	n := len(indent)
	for i, word := range strings.Fields(text) {
		length := utf8.RuneCountInString(word)
		if i > 0 && n+1+length > width {
			b.WriteString("\n" + indent)
			n = len(indent)
		} else if i > 0 {
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += length
	}
	return b.String()
}
