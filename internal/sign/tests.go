package sign

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
)

// addTests adds what a verified statement has, if it is of tests of the image: rebuilders
// attest in the same form.
func (c *Checked) addTests(statement []byte) {
	t, err := attest.ParseTestStatement(statement)
	if err != nil {
		c.refused = append(c.refused, err.Error())
		return
	}
	t.Digest, t.Platform = c.Digest, c.Platform
	c.tests = append(c.tests, *t)
}

// RequireTests lets the report have the results of tests of each image, and adds as a problem
// where there are none, or where a case failed. The error is ErrUnverified then.
func (r *Report) RequireTests() error {
	missing := 0
	for i := range r.Subjects {
		c := &r.Subjects[i]
		if c.Platform == "" {
			continue // an index is not what runs
		}
		slices.Sort(c.refused)
		why := ""
		if len(c.tests) == 0 {
			why = cmp.Or(strings.Join(slices.Compact(c.refused), "; "), "is not attached")
		}
		for _, t := range c.tests {
			if len(t.Failed) > 0 {
				why = "says that cases failed, the first of them " + t.Failed[0]
			}
		}
		if why != "" {
			c.Problems[attest.TestResult] = why
			missing++
		}
		c.Tests = c.tests
	}
	if missing > 0 {
		r.Verified = false
		return fmt.Errorf("%s %w: test results of %d of %d images are missing, refused or failures", r.Reference, ErrUnverified, missing, len(r.Subjects)-1)
	}
	return nil
}

// A CaseRow is what came out of a case: the platforms on which it passed, was skipped or
// failed, in words.
type CaseRow struct{ Name, Passed, Skipped, Failed string }

// Cases are all cases of all results, those that passed first.
func (r *Report) Cases() (rows []CaseRow) {
	var names []string
	var all []lock.Platform
	found := map[string]*[3][]lock.Platform{}
	for _, s := range r.Subjects {
		for _, t := range s.Tests {
			if !slices.Contains(all, s.Platform) {
				all = append(all, s.Platform)
			}
			for i, list := range [][]string{t.Passed, t.Skipped, t.Failed} {
				for _, name := range list {
					if found[name] == nil {
						found[name] = new([3][]lock.Platform)
						names = append(names, name)
					}
					if on := &found[name][i]; !slices.Contains(*on, s.Platform) {
						*on = append(*on, s.Platform)
					}
				}
			}
		}
	}
	words := func(on []lock.Platform) string {
		if len(on) == len(all) {
			return "all"
		}
		var list []string
		for _, p := range on {
			list = append(list, string(p))
		}
		return cmp.Or(strings.Join(list, ", "), "-")
	}
	for _, name := range names {
		on := found[name]
		rows = append(rows, CaseRow{name, words(on[0]), words(on[1]), words(on[2])})
	}
	return rows
}
