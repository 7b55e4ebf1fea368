package verify

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
	"time"
)

//go:embed report.html
var page string

// pages makes the page of a report. It needs nothing from elsewhere: no script, no
// font, no image. Everything that came from an image is escaped by html/template.
var pages = template.Must(template.New("report").Funcs(template.FuncMap{
	"class": func(v any) string {
		switch v {
		case Pass, Verified:
			return "pass"
		case Fail, Differs:
			return "fail"
		}
		return "skip"
	},
	"time":  func(t time.Time) string { return t.Format(time.RFC3339) },
	"join":  strings.Join,
	"short": shortDigest,
}).Parse(page))

// shortDigest is enough of a digest or sum to tell it from others by eye.
func shortDigest(s string) string {
	if rest, ok := strings.CutPrefix(s, "sha256:"); ok && len(rest) == 64 {
		return "sha256:" + rest[:12] + "…"
	}
	return s
}

// Groups are a platform's checks for a page: what did not pass first.
func (p *Platform) Groups() (failed, rest []Check) {
	for _, c := range p.Checks {
		if c.Result == Pass {
			rest = append(rest, c)
		} else {
			failed = append(failed, c)
		}
	}
	return failed, rest
}

// NotPassed are the checks that did not pass, Passed the others.
func (p *Platform) NotPassed() []Check { failed, _ := p.Groups(); return failed }

// Passed are the checks that passed.
func (p *Platform) Passed() []Check { _, rest := p.Groups(); return rest }

// Summary is a platform in one line.
func (p *Platform) Summary() string { return p.summary() }

// Summary is the whole run in one line.
func (r *Report) Summary() string { return r.summary() }

// WriteHTML writes the report as one page that stands for itself.
func (r *Report) WriteHTML(w io.Writer) error { return pages.Execute(w, r) }
