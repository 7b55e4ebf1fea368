package verify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/internal/verify/diff"
)

// all are the checks of the platforms, and around them those of no platform.
func (s *Subject) all() []*PlatformResult {
	return slices.Concat([]*PlatformResult{{Checks: s.Inputs}}, s.Platforms, []*PlatformResult{{Checks: s.Index}})
}

// explain says what differs, innermost first. What differs in the same way, in many
// files or on many platforms, is said once.
func (s *Subject) explain() {
	var list []Explanation
	for _, p := range s.all() {
		for _, c := range p.Checks {
			if !c.failed() || c.Follows {
				continue
			}
			i := slices.IndexFunc(list, func(e Explanation) bool { return e.Level == c.Level && e.Text == c.Note })
			if i < 0 {
				i = len(list)
				list = append(list, Explanation{Level: c.Level, Text: c.Note, Details: c.Details})
			}
			e := &list[i]
			if !slices.Contains(e.Names, c.Name) {
				e.Names = append(e.Names, c.Name)
			}
			if p.Platform != "" && !slices.Contains(e.Platforms, p.Platform) {
				e.Platforms = append(e.Platforms, p.Platform)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Explanation) int {
		return slices.Index(levels, a.Level) - slices.Index(levels, b.Level)
	})
	for i := range list {
		list[i].Text = s.paragraph(&list[i], i == 0 && onlyOwn(list) && s.Builder == nil)
	}
	s.Explanations = list
}

// onlyOwn reports whether what differs are programs that are compiled from this project's
// own source.
func onlyOwn(list []Explanation) bool {
	return len(list) == 1 && list[0].Level == LevelBinary && !slices.ContainsFunc(list[0].Names, func(name string) bool { return !ofProject(name) })
}

// say fills in one of the texts of the report. That it cannot is said in its place, and
// changes nothing of what was found.
func say(name string, about any) string {
	var b strings.Builder
	if err := textReport.ExecuteTemplate(&b, name, about); err != nil {
		return "This cannot be put into words: " + diff.Printable(err.Error()) + "."
	}
	return b.String()
}

// paragraph says for people what an explanation is about. Where programs of this project
// are all that differs, it says what that most likely means.
func (s *Subject) paragraph(e *Explanation, alone bool) string {
	where := ""
	switch all, n := len(s.Platforms), len(e.Platforms); {
	case n == 0:
	case n == all && n > 1:
		where = " on all " + strconv.Itoa(n) + " platforms"
	case n <= 3:
		where = " on " + join(e.Platforms)
	default:
		where = fmt.Sprintf(" on %d of %d platforms (%s and others)", n, all, e.Platforms[0])
	}
	names := join(e.Names)
	if len(e.Names) > 3 {
		names = fmt.Sprintf("%s and %d other files", e.Names[0], len(e.Names)-1)
	}
	return say("why "+string(e.Level), struct {
		*Subject
		Names, Where, How, Revision string
		OfLock, Layer, Alone        bool
	}{s, names, where, strings.TrimSuffix(e.Text, "."), s.revision, s.Kind == KindLock, strings.HasPrefix(names, "layer "), alone})
}

func join(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// mean says what the verdict means, and what it does not.
func (s *Subject) mean(v *Verifier, tag bool) {
	if s.Verdict == Unverified {
		return
	}
	says := struct {
		*Subject
		Host                      string
		Fresh, Tag, Chosen        bool // Chosen: somebody else than the image chose its inputs
		Compared, Files, Attested int
		Skipped                   []string
		Differing                 string // what this program makes otherwise
		One                       bool   // thing
	}{Subject: s, Host: ThisProgram().Host, Fresh: v.Fresh, Tag: tag,
		Differing: diff.Printable(join(s.otherwise())), One: len(s.otherwise()) == 1}
	passed := func(c Check) bool { return c.Result == Pass }
	says.Attested = count(s.Rebuilders, passed)
	says.Chosen = s.Kind == KindLock || slices.ContainsFunc(s.Inputs, func(c Check) bool { return c.Name == lockAtHand && passed(c) })
	var platforms []string
	for _, p := range s.all() {
		of := ""
		if p.Platform != "" {
			of = " of " + p.Platform
			if p.Result == Skip {
				platforms = append(platforms, p.Platform)
				continue
			}
			says.Compared++
			says.Files += p.files()
		}
		for _, c := range p.Checks {
			if c.Result == Skip {
				says.Skipped = append(says.Skipped, c.Name+of+": "+c.Note)
			}
		}
	}
	if len(platforms) > 0 {
		says.Skipped = append(says.Skipped, join(platforms)+": not compared")
	}
	for name, list := range map[string]*[]string{"means": &s.Means, "means not": &s.MeansNot} {
		*list = slices.Collect(strings.FieldsFuncSeq(say(name, says), func(r rune) bool { return r == '\n' }))
	}
}
