package verify

import (
	_ "embed"
	"html/template"
	"io"
	"slices"
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
	"time": func(t time.Time) string { return t.Format(time.RFC3339) },
}).Parse(page))

// Passed are the checks that passed, NotPassed the others.
func (p *PlatformResult) Passed() []Check {
	return slices.DeleteFunc(slices.Clone(p.Checks), func(c Check) bool { return c.Result != Pass })
}

// NotPassed are the checks that did not pass.
func (p *PlatformResult) NotPassed() []Check {
	return slices.DeleteFunc(slices.Clone(p.Checks), func(c Check) bool { return c.Result == Pass })
}

// Summary is a platform in one line.
func (p *PlatformResult) Summary() string { return p.summary() }

// Summary is the whole run in one line.
func (r *Report) Summary() string { return r.summary() }

// WriteHTML writes the report as one page that stands for itself.
func (r *Report) WriteHTML(w io.Writer) error { return pages.Execute(w, r) }
