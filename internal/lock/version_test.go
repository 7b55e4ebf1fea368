package lock

import (
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/chance"
)

// TestVersionOrder guards the order of images: upstream's version, then the revision as a
// number. semver calls 1.104.5-r1 a pre-release of 1.104.5, and -r10 older than -r9.
func TestVersionOrder(t *testing.T) {
	ordered := []string{
		"1.99.9-r12", "1.102.3", "1.102.3-r1", "1.102.3-r9", "1.102.3-r10", "1.104.0-pre-r7", "1.104.0-r0", "1.104.5-r0", "1.104.5-r100", "1.104.10-r0",
	}
	shuffled := slices.Clone(ordered)
	chance.New(t).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortFunc(shuffled, func(a, b string) int {
		v, aerr := ParseImageVersion(a)
		w, berr := ParseImageVersion(b)
		if aerr != nil || berr != nil {
			t.Fatal(aerr, berr)
		}
		return v.Compare(w)
	})
	if !slices.Equal(shuffled, ordered) {
		t.Errorf("sorted: %v", shuffled)
	}
	for s, want := range map[string]ImageVersion{
		"1.102.3": {"v1.102.3", 0}, "v1.102.3": {"v1.102.3", 0}, "1.102.3-r0": {"v1.102.3", 0}, "v1.102.3-r17": {"v1.102.3", 17},
		"1.105.0-pre-r2": {"v1.105.0-pre", 2}, "1.102.3-r01": {"v1.102.3-r01", 0}, // a pre-release
	} {
		if got, err := ParseImageVersion(s); err != nil || got != want {
			t.Errorf("%s is read as %v, %v", s, got, err)
		}
	}
	for _, bad := range []string{"", "latest", "1.102", "1.102.x-r1", "1.102.3+build", "1.102.3+build-r1", "-r1", "1.102.3-r1\n", "v", "vv1.102.3"} {
		if v, err := ParseImageVersion(bad); err == nil {
			t.Errorf("%q is read as %v", bad, v)
		}
	}
}

func TestWithdrawn(t *testing.T) {
	// Before outputs are recorded: what they would give may be what was withdrawn, unless it
	// is known to be published.
	for _, test := range []struct {
		published int
		withdrawn string
		want      bool
	}{{-1, "1.102.3-r0", true}, {-1, "1.102.2-r0", false}, {0, "1.102.3-r1", true}, {1, "1.102.3-r1", false}, {1, "v1.102.3", true}} {
		l := sample()
		l.Outputs, l.Withdrawn = nil, []string{test.withdrawn}
		if l.Published.Revision = test.published; test.published < 0 {
			l.Published = nil
		}
		if got := l.IsWithdrawn(); got != test.want {
			t.Errorf("published %d, withdrawn %s: %v", test.published, test.withdrawn, got)
		}
	}
	l := sample() // 1.102.3-r1
	for _, withdrawn := range []string{"v1.102.3", "1.102.3-r1"} {
		if l.Withdrawn = []string{withdrawn}; !l.IsWithdrawn() {
			t.Errorf("%s: not withdrawn", withdrawn)
		}
	}
	if l.Withdrawn = []string{"1.102.3-r0", "1.102.3-r10", "v1.102.2"}; l.IsWithdrawn() {
		t.Error("withdrawn with another revision")
	}
}

// TestRevision guards which revision an image is: that of the one that was published as
// long as it is the same, else the next, however often it is built.
func TestRevision(t *testing.T) {
	build := func(l *Lock, index string) int {
		t.Helper()
		l.Begin()
		l.Outputs[Default].Index = index
		l.Revise()
		return l.Inputs.Revision
	}
	published := digest("e")
	l := sample()
	l.Published.Revision, l.Inputs.Revision = 9, 3
	for _, test := range []struct {
		index string
		want  int
	}{{digest("1"), 10}, {digest("2"), 10}, {published, 9}, {digest("1"), 10}} {
		if got := build(l, test.index); got != test.want {
			t.Errorf("%s: revision %d, not %d", test.index, got, test.want)
		}
	}
	l.Published = nil
	if got := build(l, digest("1")); got != 0 {
		t.Errorf("nothing published: revision %d", got)
	}
	// A revision that was withdrawn was published, whatever the lock knows of it.
	l.Published = &Published{Revision: 1, Index: map[string]string{Default: published}}
	l.Withdrawn = []string{"1.102.3-r4", "1.102.2-r9", "v1.102.2"}
	if got := build(l, digest("1")); got != 5 {
		t.Errorf("-r4 was withdrawn: revision %d", got)
	}
	if got := build(l, published); got != 1 {
		t.Errorf("-r4 was withdrawn, and what is published is the same: revision %d", got)
	}
	l.Withdrawn = []string{"1.102.3-r1"}
	if got := build(l, published); got != 1 {
		t.Errorf("what was withdrawn, again: revision %d", got)
	}
	if got := build(l, digest("1")); got != 2 {
		t.Errorf("after what was withdrawn: revision %d", got)
	}
	l.Withdrawn = nil
	// Another variant that differs is another image, too.
	l.Published = &Published{Revision: 2, Index: map[string]string{Default: published, "debug": digest("1")}}
	if got := build(l, published); got != 3 {
		t.Errorf("a variant is gone: revision %d", got)
	}
}

// TestOf guards what one variant's inputs are: it, its programs, and nothing of the others.
func TestOf(t *testing.T) {
	l := sample()
	l.Inputs.Programs = append(l.Inputs.Programs, Program{Package: "tailscale.com/cmd/tailscaled2"})
	l.Inputs.Variants = append(l.Inputs.Variants, Variant{
		Name: "nonroot", Programs: []string{"derper"}, User: "65532", Suffix: "-nonroot", Budget: 1,
		Files: []Entry{{Path: "home/nonroot/", Mode: "0700", Owner: 65532}},
	})
	in, err := l.Inputs.Of("nonroot")
	if err != nil || len(in.Variants) != 1 || len(in.Programs) != 1 || in.Programs[0].Name() != "derper" {
		t.Errorf("%+v, %v", in, err)
	}
	v := in.Image("linux/386").Variant()
	if v.Suffix != "" || v.Budget != 0 || v.User != "65532" || len(v.Files) != 1 {
		t.Errorf("the image's: %+v", v)
	}
	if len(l.Inputs.Programs) != 3 || l.Inputs.Variants[1].Budget != 1 || l.Inputs.Variants[0].Budget == 0 {
		t.Errorf("the lock was changed: %+v", l.Inputs)
	}
	if _, err := l.Inputs.Of("debug"); err == nil || !strings.Contains(err.Error(), `"debug"`) {
		t.Errorf("a variant that is not there: %v", err)
	}
}
