package verify

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/internal/plan"
)

// explain says what differs, innermost first. What differs in the same way, in many
// files or on many platforms, is said once.
func (s *Subject) explain() {
	var list []Explanation
	add := func(platform string, c Check) {
		if !c.failed() || c.Follows {
			return
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
		if platform != "" && !slices.Contains(e.Platforms, platform) {
			e.Platforms = append(e.Platforms, platform)
		}
	}
	for _, c := range s.Inputs {
		add("", c)
	}
	for _, p := range s.Platforms {
		for _, c := range p.Checks {
			add(p.Platform, c)
		}
	}
	for _, c := range s.Index {
		add("", c)
	}
	slices.SortStableFunc(list, func(a, b Explanation) int {
		return slices.Index(levels, a.Level) - slices.Index(levels, b.Level)
	})
	entrypoint := onlyEntrypoint(list)
	for i := range list {
		list[i].Text = s.paragraph(&list[i])
		if i == 0 && entrypoint {
			list[i].Text += " " + s.anotherRevision()
		}
	}
	s.Explanations = list
}

// anotherRevision says what it most likely means that only the entrypoint differs.
func (s *Subject) anotherRevision() string {
	names, commit := "Its provenance names the commit", "COMMIT"
	if s.revision != "" {
		names, commit = "Its provenance, of which the signature was not verified here, names commit "+s.revision, s.revision
	}
	return "All else is the same. The entrypoint is the one program that is compiled from this project's own source, which no label " +
		"names: so the image was most likely made by another revision of this project. " + names + "; to verify with the program of " +
		"that revision: go run github.com/xavieralpha/derper/cmd/build@" + commit + " verify " + s.Ref
}

// onlyEntrypoint reports whether what differs is what comes from this project's own
// source: the entrypoint, and the defaults of its variables.
func onlyEntrypoint(list []Explanation) bool {
	for i, e := range list {
		switch {
		case e.Level == LevelBinary && len(e.Names) == 1 && path.Base(e.Names[0]) == plan.Entrypoint:
		case i > 0 && e.Level == LevelConfig && !slices.ContainsFunc(e.Details, func(d string) bool { return !strings.HasPrefix(d, ".config.Env[") }):
		default:
			return false
		}
	}
	return len(list) > 0
}

// paragraph says for people what an explanation is about.
func (s *Subject) paragraph(e *Explanation) string {
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
	format := sentences[e.Level]
	what := "the image"
	if s.Kind == KindLock {
		what = "what the lock records"
		if e.Level == LevelBinary {
			format = "%[1]s%[2]s is not the program that the inputs give: %[3]s."
		}
	}
	if e.Level == LevelEntry && strings.HasPrefix(names, "layer ") {
		format = "The %[1]s%[2]s differs from the rebuilt one: %[3]s."
	}
	return fmt.Sprintf(format, names, where, strings.TrimSuffix(e.Text, "."), what)
}

// sentences say what differs: 1 its names, 2 on which platforms, 3 how, 4 in what.
var sentences = map[Level]string{
	LevelInput:  "An input is not what it should be (%[1]s): %[3]s.",
	LevelBinary: "%[1]s%[2]s is not the program that the inputs give. %[3]s.",
	LevelEntry:  "In the layers%[2]s, %[1]s differs from the rebuilt: %[3]s.",
	LevelCompression: "The files are the same, bit for bit, and only the compression of %[1]s%[2]s differs: %[3]s. " +
		"What runs is what was rebuilt; the digests are others.",
	LevelConfig:   "The config%[2]s, which says how a container starts, differs: %[3]s.",
	LevelManifest: "The manifest%[2]s, which says what %[4]s consists of, differs: %[3]s.",
	LevelAttestation: "What is stated beside the image%[2]s of what is in it and how it was made differs from what the rebuilt image gives: %[3]s. " +
		"The image is the same, bit for bit; this project's program writes these statements, and another revision of it may word them otherwise.",
	LevelIndex: "The index, which says what there is for each platform, differs: %[3]s.",
}

func join(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// mean says what the verdict means, and what it does not.
func (s *Subject) mean(v *Verifier, tag bool) error {
	if s.Verdict == Unverified {
		return nil
	}
	says := struct {
		*Subject
		Host                      string
		Fresh, Tag, Chosen        bool // Chosen: somebody else than the image chose its inputs
		Compared, Files, Attested int
		Skipped                   []string
	}{Subject: s, Host: program().Host, Fresh: v.Fresh, Tag: tag}
	passed := func(c Check) bool { return c.Result == Pass }
	says.Attested = count(s.Rebuilders, passed)
	says.Chosen = s.Kind == KindLock || slices.ContainsFunc(s.Inputs, func(c Check) bool { return c.Name == lockAtHand && passed(c) })
	skip := func(of string, checks []Check) {
		for _, c := range checks {
			if c.Result == Skip {
				says.Skipped = append(says.Skipped, c.Name+of+": "+c.Note)
			}
		}
	}
	skip("", slices.Concat(s.Inputs, s.Index))
	var platforms []string
	for _, p := range s.Platforms {
		if p.Result == Skip {
			platforms = append(platforms, p.Platform)
			continue
		}
		says.Compared++
		says.Files += p.files()
		skip(" of "+p.Platform, p.Checks)
	}
	if len(platforms) > 0 {
		says.Skipped = append(says.Skipped, join(platforms)+": not compared")
	}
	for name, list := range map[string]*[]string{"means": &s.Means, "means not": &s.MeansNot} {
		var b strings.Builder
		if err := textReport.ExecuteTemplate(&b, name, says); err != nil {
			return err
		}
		*list = slices.Collect(strings.FieldsFuncSeq(b.String(), func(r rune) bool { return r == '\n' }))
	}
	return nil
}
