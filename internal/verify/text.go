package verify

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xavieralpha/derper/internal/progress"
)

// WriteText writes the report for a terminal: a row for each input and platform, and
// one for each thing in them that did not pass.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.Subjects {
		s.writeText(&b)
		b.WriteByte('\n')
	}
	fmt.Fprintln(&b, r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// summary is the whole run in one line.
func (r *Report) summary() string {
	verified := 0
	for _, s := range r.Subjects {
		if s.Verdict == Verified {
			verified++
		}
	}
	line := fmt.Sprintf("%d of %d verified in %s", verified, len(r.Subjects), r.duration())
	if r.Fresh {
		line += fmt.Sprintf(", built from nothing, %s on disk at most", progress.Bytes(r.DiskBytes))
	} else {
		line += ", with a cache that was trusted"
	}
	return line
}

func (r *Report) duration() time.Duration {
	return (time.Duration(r.Seconds*1000) * time.Millisecond).Round(100 * time.Millisecond)
}

func (s *Subject) writeText(b *strings.Builder) {
	fmt.Fprintln(b, s.Ref)
	field := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-8s %s\n", name, fmt.Sprintf(format, args...))
	}
	if s.Digest != "" {
		field(string(s.Kind), "%s", s.Digest)
	}
	if m := s.Release; m != nil {
		says := "claims"
		if s.Kind == KindLock {
			says = "inputs"
		}
		field(says, "tailscale %s, commit %s of %s", m.Version, m.Commit, m.Time.Format(time.RFC3339))
		field("", "%s, CA roots %s, layer format %d", m.Go, m.Roots, m.LayerFormat)
	}
	if len(s.Inputs)+len(s.Rebuilders) > 0 {
		b.WriteByte('\n')
	}
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	row := func(r Result, level Level, name, note string) {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r, level, name, note)
	}
	for _, c := range s.Inputs {
		row(c.Result, c.Level, c.Name, c.Note)
	}
	for _, p := range s.Platforms {
		row(p.Result, "image", p.Platform, p.summary())
	}
	for _, c := range s.Index {
		note := c.Note
		switch {
		case c.Follows:
			note = "differs as what it names does"
		case note == "":
			note = c.Image
		}
		row(c.Result, c.Level, c.Name, note)
	}
	for _, c := range s.Rebuilders {
		row(c.Result, c.Level, c.Name, c.Note)
	}
	tw.Flush()
	for i, e := range s.Explanations {
		if i == maxExplained {
			fmt.Fprintf(b, "\nand %d more, which the report in JSON has\n", len(s.Explanations)-i)
			break
		}
		title := "why"
		if i > 0 {
			title = "also"
		}
		fmt.Fprintf(b, "\n%s (%s)\n%s", title, e.Level, wrap(e.Text, "  "))
		for _, d := range e.Details {
			fmt.Fprintf(b, "    %s\n", d)
		}
	}
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(b, "\n%s\n", title)
		}
		for _, line := range lines {
			b.WriteString("  - " + strings.TrimPrefix(wrap(line, "    "), "    "))
		}
	}
	list("this means", s.Means)
	list("this does not mean, or say", s.MeansNot)
	switch {
	case s.Error != "":
		fmt.Fprintf(b, "\n%s: %s\n", s.Verdict, s.Error)
	default:
		fmt.Fprintf(b, "\n%s: %s\n", s.Verdict, s.Ref)
	}
}

// maxExplained is how many things that differ are told on a terminal.
const maxExplained = 12

// summary is a platform in one line.
func (p *PlatformResult) summary() string {
	switch p.Result {
	case Pass:
		programs := p.Count(Pass, LevelBinary)
		what := count(programs, "program")
		if others := p.files() - programs; others > 0 {
			what += ", " + count(others, "other file")
		}
		what = fmt.Sprintf("%s: %s, %s, config", p.Digest, what, count(p.Count(Pass, LevelEntry)+programs-p.files(), "layer"))
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

// wrap breaks a text into lines of at most 100 characters, each behind an indent.
func wrap(text, indent string) string {
	const width = 100
	var b strings.Builder
	n := 0
	for _, word := range strings.Fields(text) {
		switch length := len([]rune(word)); {
		case n == 0:
			b.WriteString(indent + word)
			n = len(indent) + length
		case n+1+length > width:
			b.WriteString("\n" + indent + word)
			n = len(indent) + length
		default:
			b.WriteString(" " + word)
			n += 1 + length
		}
	}
	return b.String() + "\n"
}
