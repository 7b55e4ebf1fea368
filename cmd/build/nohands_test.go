package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/vex"
)

// TestNoHands is what happens to a release while nobody looks: upstream has flags that nobody
// wrote rows for, others are gone or have changed, Go has a patch, the CA roots are old, and on
// some days there is nothing. Each time the scheduled run does what there is to do, from the
// lock on main to the tags.
func TestNoHands(t *testing.T) {
	need.Minutes(t, "several releases and three Go toolchains")
	const first, second, third = "go1.26.6", "go1.26.7", "go1.26.8"
	root := func(at time.Time) string {
		return module.PseudoVersion("v0", "", at, "0123456789ab")
	}
	now := time.Now().UTC()
	old, fresh, fresher := root(now.Add(-50*24*time.Hour)), root(now.Add(-10*24*time.Hour)), root(now)
	s := newStage(t, func(s *stage, in *lock.Inputs) {
		s.upstream.SetToolchains(t, first)
		in.Go = s.upstream.Go(first)
		s.upstream.Remove(lock.RootsModule)
		in.Roots = s.upstream.AddRoots(t, old, releasetest.Root{Name: "Old Root"})
		in.Programs, in.Variants = stagedPrograms[:0:0], stagedVariants[:1]
		for _, p := range stagedPrograms {
			if slices.Contains(in.Variants[0].Programs, p.Name()) {
				in.Programs = append(in.Programs, p)
			}
		}
	})
	derper := func(flags ...string) map[string]string {
		flags = append([]string{`flag.String("a", ":443", "address")`}, flags...)
		return map[string]string{"go.mod": "module tailscale.com\n\ngo 1.26.6\n", "cmd/derper/derper.go": releasetest.DerperSource(flags...)}
	}
	s.upstream.Commit(t, derper(`flag.Bool("dev", false, "development")`, `flag.String("home", "", "root page")`,
		`flag.Duration("tcp-keepalive-time", 10*time.Minute, "TCP keep-alive")`, `flag.Duration("tcp-user-timeout", 15*time.Second, "TCP timeout")`))
	s.next("v1.106.0")

	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "EVENT\tIMAGE\tTAGS THAT MOVED OR ARE NEW\tHOURS OF WORK\tNOTES")
	before := map[string]string{}
	var findings []vex.Finding // what a scan says of each program
	// day is a scheduled run after an event: it releases an image, and its notes say certain
	// things. "" is no release.
	day := func(event, image string, notes ...string) {
		t.Helper()
		if image == "" {
			s.isQuiet(lock.Stable)
			fmt.Fprintf(rows, "%s\tnone\tnone\t0\t\n", event)
			return
		}
		built := s.github.Revision("main")
		theirs := "somebody's change while " + image + " was made\n"
		began := time.Now()
		known, err := json.Marshal(findings)
		if err != nil {
			t.Fatal(err)
		}
		s.releases(workflowRun{channel: lock.Stable, home: s.home, step: "scan", env: []string{testScans + "=" + string(known)}, artifact: func(step, _ string) {
			if step != "record" {
				return
			}
			if err := s.github.Push(map[string]string{"README.md": theirs}); err != nil {
				t.Fatal(err)
			}
		}})
		t.Logf("%s: %v", event, time.Since(began).Round(time.Second))
		r := s.github.Releases()[len(s.github.Releases())-1]
		if r.Tag != image {
			t.Fatalf("%s: released %s, not %s", event, r.Tag, image)
		}
		for _, want := range notes {
			if !strings.Contains(r.Body, want) {
				t.Errorf("%s: the notes do not say %q:\n%s", event, want, r.Body)
			}
		}
		// The tag's commit has what was built as its parent, and main has both changes.
		if parent := s.github.Revision(image + "^"); parent != built {
			t.Errorf("%s: the parent of %s is %s, not %s, of which it was built", event, image, parent, built)
		}
		if s.github.File("README.md") != theirs || s.lockOn(lock.File).Inputs.Version() != image {
			t.Errorf("%s: main lacks a change: README.md is %q, the lock's image %s", event, s.github.File("README.md"), s.lockOn(lock.File).Inputs.Version())
		}
		after := s.tags()
		var moved []string
		for _, tag := range slices.Sorted(maps.Keys(after)) {
			if repository, name, _ := strings.Cut(tag, ":"); after[tag] != before[tag] && repository == "derper" {
				moved = append(moved, name)
			}
		}
		for tag, digest := range before {
			if strings.Contains(tag, "-r") && after[tag] != digest {
				t.Errorf("%s: %s has moved", event, tag)
			}
		}
		short, _, _ := strings.Cut(image, "-r")
		for _, name := range []string{image, short, "v" + short, short[:strings.LastIndex(short, ".")], "latest"} {
			if got, want := after["derper:"+name], s.lockOn(lock.File).Output().Index; got != want || after["me/derper:"+name] != want {
				t.Errorf("%s: %s is %s and %s, not %s", event, name, got, after["me/derper:"+name], want)
			}
		}
		before = after
		fmt.Fprintf(rows, "%s\t%s\t%s\t0\t%s\n", event, image, strings.Join(moved, " "), strings.Join(notes, "; "))
	}

	day("a first release", "1.106.0-r0", "`"+first+"`")
	day("nothing new", "")

	s.upstream.Commit(t, derper(`flag.Bool("dev", false, "development")`,
		`flag.String("tcp-keepalive-time", "long", "TCP keep-alive, in words")`, `flag.Duration("tcp-user-timeout", 20*time.Second, "TCP timeout")`,
		`flag.Duration("never-seen", time.Minute, "how long nobody knew of it")`, `flag.Bool("more-bool", true, "")`, `flag.Int("more-int", -3, "")`,
		`flag.Int64("more-int64", 1<<40, "")`, `flag.Uint("more-uint", 7, "")`, `flag.Uint64("more-uint64", 1<<63, "")`,
		`flag.Float64("more-float", 0.5, "")`, `flag.String("more-text", "word", "")`))
	s.next("v1.106.1")
	day("upstream has unknown flags, and changed others", "1.106.1-r0",
		"-never-seen is new (duration, default 1m0s): NEVER_SEEN", "-more-uint64 is new (uint64, default 9223372036854775808): MORE_UINT64",
		"-home is gone (string): a relay for which FLAGHOME is set does not start",
		"-tcp-keepalive-time (TCP_KEEPALIVE_TIME) has another type: duration → string", "-tcp-user-timeout (TCP_USER_TIMEOUT) has another default: 15s → 20s")
	if page := s.github.File(flags.PageFile); !strings.Contains(page, "`NEVER_SEEN` | `1m0s` | `-never-seen` | how long nobody knew of it |") {
		t.Errorf("%s has no row for the new flag:\n%s", flags.PageFile, page)
	}

	s.upstream.SetToolchains(t, first, second)
	day("a newer patch of Go", "1.106.1-r1", "`"+first+"` → `"+second+"`")

	s.upstream.AddRoots(t, fresh, releasetest.Root{Name: "Old Root"}, releasetest.Root{Name: "New Root"})
	day("the CA roots are old", "1.106.1-r2", "`"+old+"` → `"+fresh+"`")

	s.upstream.AddRoots(t, fresher, releasetest.Root{Name: "New Root"})
	day("CA roots that can wait", "")

	// The advisory is known before the Go that heals it is out.
	findings = []vex.Finding{{ID: "GO-2026-9001", Summary: "a fault", Module: vex.Stdlib, Version: "v1.26.7", Fixed: "v1.26.8", Level: vex.Called}}
	s.next("v1.106.2")
	day("an advisory that a newer Go heals", "1.106.2-r0", "Fixable findings: 1.", "GO-2026-9001", "healed by", "go1.26.8: a revision follows when it is out")
	findings = nil
	s.upstream.SetToolchains(t, first, second, third)
	day("that Go is out", "1.106.2-r1", "`"+second+"` → `"+third+"`", "Fixable findings: 0.")

	findings = []vex.Finding{{ID: "GO-2026-9002", Summary: "a fault", Module: "example.com/dep", Version: "v1.0.0", Level: vex.Called}}
	s.next("v1.106.3")
	day("an advisory that nothing heals", "1.106.3-r0", "Fixable findings: 0.", "| [GO-2026-9002](https://pkg.go.dev/vuln/GO-2026-9002) | `example.com/dep v1.0.0` | nothing yet |")
	findings = nil
	day("nothing new", "")
	rows.Flush()
	t.Logf("\n%s", &table)
}
