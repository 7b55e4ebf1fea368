package upstream

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/features"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// newFeatureWorld is upstream with a first release whose features are given, and a lock
// whose tailscaled keeps some of them.
func newFeatureWorld(t *testing.T, requires map[string][]string, keep ...string) *world {
	w := newWorld(t)
	w.Inputs.Programs = []lock.Program{{Package: "tailscale.com/cmd/derper"}, {Package: "tailscale.com/cmd/tailscaled", Features: keep}}
	w.next("v1.103.0", map[string]string{features.File: releasetest.FeatureSource(requires)})
	w.Inputs = w.update(Wish{Version: "v1.103.0"}).New
	w.warnings = nil
	return w
}

func said(u *Update) (list []string) {
	for _, c := range u.Features {
		list = append(list, c.String())
	}
	return list
}

func TestFeatures(t *testing.T) {
	w := newFeatureWorld(t, map[string][]string{
		"cli": nil, "ssh": {"c2n"}, "c2n": nil, "netstack": {"gro"}, "gro": nil, "lazywg": nil, "portmapper": nil, "tap": nil, "kept": nil,
	}, "kept", "netstack", "portmapper")
	if got, want := w.Inputs.Programs[1].Tags, []string{"ts_omit_c2n", "ts_omit_lazywg", "ts_omit_ssh", "ts_omit_tap"}; !slices.Equal(got, want) {
		t.Fatalf("tags are %v, want %v", got, want)
	}
	w.next("v1.104.0", map[string]string{features.File: releasetest.FeatureSource(map[string][]string{
		"cli": nil, "ssh": {"c2n"}, "c2n": nil, "netstack": nil, "gro": nil, "portmapper": {"nattraversal", "tap"}, "tap": nil,
		"nattraversal": {"udptransport"}, "udptransport": nil, "connreject": nil,
	})})
	u := w.update(Wish{Channel: lock.Stable})
	want := []string{
		"connreject is new (the feature connreject): left out of tailscaled",
		"gro is left out of tailscaled from now on: nothing that it keeps requires it",
		"kept, which tailscaled keeps, is not a feature of this release: change features in inputs.programs",
		"lazywg is gone, and its build tag: what was left out of tailscaled with it may be in it",
		"nattraversal is new (the feature nattraversal): tailscaled keeps it, portmapper requires it",
		"tap is in tailscaled from now on: portmapper requires it",
		"udptransport is new (the feature udptransport): tailscaled keeps it, nattraversal requires it",
	}
	if got := said(u); !slices.Equal(got, want) {
		t.Errorf("features are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got, want := u.New.Programs[1].Tags, []string{"ts_omit_c2n", "ts_omit_connreject", "ts_omit_gro", "ts_omit_ssh"}; !slices.Equal(got, want) {
		t.Errorf("tags are %v, want %v", got, want)
	}
	if p := u.Old.Programs[1]; !slices.Contains(p.Tags, "ts_omit_lazywg") || u.New.Programs[0].Tags != nil {
		t.Errorf("the lock's own programs were changed, or those without features: %+v, %+v", p, u.New.Programs[0])
	}
	if c, want := u.Changes()[2], (Change{"build tags of tailscaled", "4", "4 +ts_omit_connreject +ts_omit_gro -ts_omit_lazywg -ts_omit_tap"}); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	if _, err := (&lock.Lock{Schema: lock.SchemaVersion, Inputs: u.New}).Bytes(); err != nil {
		t.Errorf("the inputs make no lock: %v", err)
	}
	w.warned()
}

// Who changes the features of a lock asks for its own release, and gets the tags.
func TestFeaturesByHand(t *testing.T) {
	w := newFeatureWorld(t, map[string][]string{"ssh": nil, "tap": nil, "cli": nil}, "ssh")
	w.Inputs.Programs[1].Features = []string{"cli", "tap"}
	u := w.update(Wish{Version: "v1.103.0"})
	if got := u.New.Programs[1].Tags; !slices.Equal(got, []string{"ts_include_cli", "ts_omit_ssh"}) || !u.IsNew() || len(u.Changes()) != 1 {
		t.Errorf("tags are %v: %+v", got, u.Changes())
	}
	// Tags that somebody wrote stay, and those that do nothing are named.
	w.Inputs.Programs[1] = lock.Program{Package: "tailscale.com/cmd/tailscaled", Tags: []string{"netgo", "ts_omit_gone", "ts_omit_ssh"}}
	w.next("v1.104.0", nil)
	u = w.update(Wish{Channel: lock.Stable})
	if got := u.New.Programs[1].Tags; !slices.Equal(got, w.Inputs.Programs[1].Tags) {
		t.Errorf("tags are %v", got)
	}
	if got := said(u); len(got) != 1 || !strings.HasPrefix(got[0], "gone is gone") {
		t.Errorf("%q", got)
	}
}

func TestFeaturesUnreadable(t *testing.T) {
	w := newFeatureWorld(t, map[string][]string{"ssh": nil}, "ssh")
	w.next("v1.104.0", map[string]string{features.File: "package featuretags\n\nvar Features = all()\n"})
	w.refused(Wish{Channel: lock.Stable}, "v1.104.0: upstream's features: feature/featuretags/featuretags.go", "found no map Features")
	w.Inputs.Programs[1].Tags, w.Inputs.Programs[1].Features = nil, nil // who wants none of it is not held up
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Programs[1].Tags != nil {
		t.Errorf("%+v", u.New.Programs)
	}
}

// A release from before there was a list cannot be built with some features only.
func TestFeaturesOfAnOldRelease(t *testing.T) {
	w := newFeatureWorld(t, map[string][]string{"ssh": nil}, "ssh")
	if err := os.RemoveAll(filepath.Join(w.Dir, "feature")); err != nil {
		t.Fatal(err)
	}
	w.next("v1.104.0", nil)
	w.refused(Wish{Channel: lock.Stable}, "v1.104.0: its source has no feature/featuretags/featuretags.go", "remove features and buildTags of tailscaled")
}
