package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// TestPushSeveral guards the command line for several layouts: one of each variant, with the
// tags of all, and tags chosen by hand for one image only.
func TestPushSeveral(t *testing.T) {
	other := attesttest.Other()
	r, server := registrytest.NewVariants(t, "v1.102.3", 1000, other), registrytest.Memory(t, registrytest.Options{})
	both := []string{r.Dir, r.Layout(other)}
	run := func(args ...string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		e := standard()
		code = e.program().Run(t.Context(), append([]string{"push", "--to", server.Repository("derper"), "--lock", r.LockFile}, args...), &out, &errs)
		return code, out.String(), errs.String()
	}
	for says, args := range map[string][]string{
		"--tag names one image, and there are 2 layouts": append([]string{"--tag", "edge"}, both...),
		"are both of the variant default":                {r.Dir, r.Dir},
	} {
		if code, _, stderr := run(args...); code != 2 || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	code, stdout, stderr := run(append([]string{"--json"}, both...)...)
	var report registry.Pushed
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, stderr)
	}
	var tags []string
	for _, tag := range report.Repositories[0].Tags {
		tags = append(tags, tag.Tag)
	}
	want := []string{"1.102.3-r0", "1.102.3", "v1.102.3", "1.102", "latest",
		"1.102.3-r0-other", "1.102.3-other", "v1.102.3-other", "1.102-other", "latest-other", "other"}
	if len(report.Images) != 2 || report.Images[1].Variant != "other" || !slices.Equal(tags, want) {
		t.Errorf("pushed %+v with the tags %v", report.Images, tags)
	}
}

// TestAnotherVariant guards that a variant whose parts exist needs no code: one that no
// program knows is in a lock, and is built with the others, recorded, pushed, attested and
// verified, in the registry and by the lock.
func TestAnotherVariant(t *testing.T) {
	need.Minutes(t, "builds and rebuilds two variants")
	r := releasetest.New(t, "../..")
	t.Setenv("GOPROXY", r.Proxy)
	t.Setenv("XDG_CACHE_HOME", releasetest.CacheDir(t))
	other := attesttest.Other()
	of, err := r.Inputs.Of(lock.Default)
	if err != nil {
		t.Fatal(err)
	}
	r.Inputs, r.Inputs.Platforms = of, []lock.Platform{"linux/amd64"}
	r.Inputs.Variants = append(r.Inputs.Variants, other)
	name, server, layout := r.Lock(t), registrytest.Memory(t, registrytest.Options{}), filepath.Join(t.TempDir(), "layout")
	build := func(want int, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		e := standard()
		e.sumDB = r.SumDB
		if code := e.program().Run(t.Context(), append(args, "--lock", name), &stdout, &stderr); code != want {
			t.Fatalf("%q: exit code %d, want %d: %s", args, code, want, &stderr)
		}
		return stdout.String()
	}
	build(0, "image", "--variant", "all", "--platform", "all", "--output", layout, "--update-lock")
	l, err := lock.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	mine, its := l.Outputs[lock.Default].Platforms[0].Layers, l.Outputs[other.Name].Platforms[0].Layers
	if len(its) != len(mine)+1 || !slices.Equal(its[:len(mine)], mine) {
		t.Errorf("the layers are not the default's and one more: %+v, %+v", mine, its)
	}
	// What the cache is rid of is nothing that any of them has.
	build(0, "cache", "prune")
	if text := build(0, "image", "--variant", "all", "--output", layout, "--explain"); strings.Contains(text, ": ran") {
		t.Errorf("pruning has removed what a variant has: %s", text)
	}
	build(0, "push", "--to", server.Repository("derper"), layout, layout+other.Suffix)
	build(0, "attest", "--output", t.TempDir(), layout+other.Suffix)
	ref := server.Repository("derper") + ":other"
	if text := build(0, "verify", "--trust-cache", ref); !strings.Contains(text, "variant other") {
		t.Errorf("the report does not name the variant: %s", text)
	}
	if text := build(0, "verify", "--trust-cache", "--variant", other.Name); !strings.Contains(text, name+" other") {
		t.Errorf("the report does not name the variant: %s", text)
	}
	build(2, "verify", "--variant", other.Name, ref)
	build(2, "verify", "--variant", "none")
}
