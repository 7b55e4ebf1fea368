package verify

import (
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

	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// maxExplained is how many things that differ are told on a terminal.
const maxExplained = 12

var (
	//go:embed report.html
	page string
	//go:embed report.txt
	lines string

	functions = template.FuncMap{
		"class": func(v any) string {
			switch v {
			case Pass, Verified:
				return "pass"
			case Fail, Differs:
				return "fail"
			}
			return "skip"
		},
		"limit": func() int { return maxExplained },
		"more":  func(list []Explanation) int { return len(list) - maxExplained },
		"time":  func(t time.Time) string { return t.Format(time.RFC3339) },
		"wrap":  wrap,
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
	verified := 0
	for _, s := range r.Subjects {
		if s.Verdict == Verified {
			verified++
		}
	}
	took := (time.Duration(r.Seconds*1000) * time.Millisecond).Round(100 * time.Millisecond)
	how := "with a cache that was trusted"
	if r.Fresh {
		how = fmt.Sprintf("built from nothing, %s on disk at most", progress.Bytes(r.DiskBytes))
	}
	return fmt.Sprintf("%d of %d verified in %s, %s", verified, len(r.Subjects), took, how)
}

// Passed are the checks that passed, NotPassed the others.
func (p *PlatformResult) Passed() []Check {
	return slices.DeleteFunc(slices.Clone(p.Checks), func(c Check) bool { return c.Result != Pass })
}

// NotPassed are the checks that did not pass.
func (p *PlatformResult) NotPassed() []Check {
	return slices.DeleteFunc(slices.Clone(p.Checks), func(c Check) bool { return c.Result == Pass })
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
		what = fmt.Sprintf("%s: %s, %s, config", p.Digest, what, diff.Plural(p.Count(Pass, LevelEntry)+programs-p.files(), "layer"))
		if p.Count(Pass, LevelAttestation) > 0 {
			what += ", SBOM, provenance"
		}
		return what
	case Skip:
		for _, c := range p.Checks {
			if c.Result == Skip {
				return c.Note
			}
		}
		return "nothing was compared"
	}
	var what []string
	for _, l := range levels {
		if n := p.own(l); n > 0 {
			what = append(what, fmt.Sprintf("%s (%d)", l, n))
		}
	}
	return p.Digest + " differs: " + strings.Join(what, ", ")
}

// files counts what passed of what a container sees in its root: programs, other
// files, folders.
func (p *PlatformResult) files() (n int) {
	for _, c := range p.Checks {
		if c.Result == Pass && (c.Level == LevelBinary || c.Level == LevelEntry && !strings.HasPrefix(c.Name, "layer ")) {
			n++
		}
	}
	return n
}

// own counts the checks of a level that failed for a reason of their own.
func (p *PlatformResult) own(l Level) (n int) {
	for _, c := range p.Checks {
		if c.Result == Fail && c.Level == l && !c.Follows {
			n++
		}
	}
	return n
}

// wrap breaks a text into lines of at most 100 characters, each but the first behind an
// indent, behind which the first stands already.
func wrap(text, indent string) string {
	const width = 100
	var b strings.Builder
	n := len(indent)
	for i, word := range strings.Fields(text) {
		length := len([]rune(word))
		switch {
		case i == 0:
			n += length
		case n+1+length > width:
			b.WriteString("\n" + indent)
			n = len(indent) + length
		default:
			b.WriteByte(' ')
			n += 1 + length
		}
		b.WriteString(word)
	}
	return b.String()
}
