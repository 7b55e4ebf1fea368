package release

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/vextest"
	"github.com/xavieralpha/derper/internal/vex"
)

// TestScanStep guards against a release that does not say what affects it, or who heals that,
// and against one that is stopped by what only others can heal.
func TestScanStep(t *testing.T) {
	name, l := locked(t, func(l *lock.Lock) {
		secondVariant(l)
		l.Inputs.Variants[1].Programs = []string{"derper"}
	})
	r, _ := fake(t, name)
	var log strings.Builder
	r.Log, r.Quiet = &log, true
	version := "v" + strings.TrimPrefix(l.Inputs.Go.Version, "go")
	newer := version + "1"
	findings := []vex.Finding{
		{ID: "GO-3", Module: "golang.org/x/net", Version: "v0.50.0", Fixed: "v0.51.0", Level: vex.Called},
		{ID: "GO-1", Aliases: []string{"BIT-1", "CVE-2026-1"}, Module: vex.Stdlib, Version: version, Fixed: newer, Level: vex.Called},
		{ID: "GO-2", Module: vex.Stdlib, Version: version, Fixed: "v1.99.0", Level: vex.Called},
		{ID: "GO-4", Module: "golang.org/x/net", Version: "v0.50.0", Fixed: "v0.51.0", Level: vex.Imported},
		{ID: "GO-5", Module: "golang.org/x/net", Version: "v0.50.0", Level: vex.Called},
	}
	r.Tools.Scan = func(_ context.Context, _, file string) error {
		scans := vextest.Scans(l.Inputs, findings...)
		for _, s := range scans { // only the default variant has a program that is affected
			if s.Program == l.Inputs.Variants[1].Programs[0] {
				s.Findings = nil
			}
		}
		return scans.Write(file)
	}
	if _, err := r.Run(t.Context(), Steps[0]); err != nil {
		t.Fatal(err)
	}
	notes := func() string {
		t.Helper()
		known, err := r.known(l)
		if err != nil {
			t.Fatal(err)
		}
		image := &Image{Version: "1.102.3-r0"}
		n := &Notes{Variants: []Variant{{Name: lock.Default, Image: image, Tags: []string{"latest"}}}, Repositories: r.Repositories, Known: known}
		var b strings.Builder
		if err := n.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if text := notes(); strings.Contains(text, "vulnerabilities") {
		t.Errorf("nothing was scanned, and the notes have\n%s", text)
	}
	if _, err := r.Run(t.Context(), Named("scan")); err != nil {
		t.Fatal(err)
	}
	newer = "go" + newer[1:]
	for _, want := range []string{
		"Fixable findings: 1. As of 2026-08-21, ",
		"| advisory | module | healed by | variants |\n|---|---|---|---|\n| [GO-1](https://pkg.go.dev/vuln/GO-1), CVE-2026-1 | `stdlib " + version + "` | " + newer + ": a revision follows when it is out | default |\n",
		"| [GO-2](https://pkg.go.dev/vuln/GO-2) | `stdlib " + version + "` | go1.99.0: upstream | default |\n",
		"| [GO-3](https://pkg.go.dev/vuln/GO-3) | `golang.org/x/net v0.50.0` | v0.51.0: upstream | default |\n| [GO-5](https://pkg.go.dev/vuln/GO-5) | `golang.org/x/net v0.50.0` | nothing yet | default |\n\n## Verify\n",
	} {
		if text := notes(); !strings.Contains(text, want) {
			t.Errorf("the notes have no %q:\n%s", want, text)
		}
	}
	if want := "release: scan: GO-1 in stdlib " + version + " affects default; healed by " + newer; !strings.Contains(log.String(), want) {
		t.Errorf("said %q, want %q", log.String(), want)
	}
	findings = findings[3:4]
	r.Run(t.Context(), Named("scan"))
	if text := notes(); !strings.Contains(text, "Fixable findings: 0. As of 2026-08-21, no program calls code of which a vulnerability is known.\n\n## Verify\n") || strings.Contains(text, "| advisory") {
		t.Errorf("nothing affects it:\n%s", text)
	}
	// A scan of another lock says nothing of a program of this one.
	if err := (vex.Scans{}).Write(r.path(scansName)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.known(l); err == nil || !strings.Contains(err.Error(), "no scan of its program entrypoint") {
		t.Errorf("of another lock: %v", err)
	}
}

// reassessed is a signer that only says what it was asked for.
type reassessed struct {
	Signer
	digests []string
}

func (s *reassessed) String() string  { return "key" }
func (s *reassessed) Command() string { return "verify" }

func (s *reassessed) Reassess(_ context.Context, _, digest, scans string, _ []string) error {
	_, err := os.Stat(scans)
	s.digests = append(s.digests, digest)
	return err
}

// TestVEXStep guards against a scan that is attached to an image which no release has signed,
// and against one of which nothing is scanned.
func TestVEXStep(t *testing.T) {
	name, l := locked(t, secondVariant)
	r, _ := fake(t, name)
	signer := &reassessed{}
	r.Signer = signer
	run := func(step *Step) error {
		t.Helper()
		_, err := r.Run(t.Context(), step)
		return err
	}
	if err := run(Steps[0]); err != nil {
		t.Fatal(err)
	}
	if err := run(VEX); err == nil || !strings.Contains(err.Error(), "step scan has not been carried out") {
		t.Errorf("nothing was scanned: %v", err)
	}
	if err := run(Named("scan")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what string
		edit func(*lock.Lock)
		want []string
	}{
		{"never published", func(l *lock.Lock) { l.Published = nil }, nil},
		{"another was published", func(l *lock.Lock) {
			l.Published = &lock.Published{Index: maps.Clone(l.Indexes())}
			l.Published.Index["nonroot"] = "sha256:" + strings.Repeat("2", 64)
		}, nil},
		{"withdrawn", func(l *lock.Lock) {
			l.Published, l.Withdrawn = &lock.Published{Index: l.Indexes()}, []string{l.Inputs.Tailscale.Version}
		}, nil},
		{"published", func(l *lock.Lock) { l.Published, l.Withdrawn = &lock.Published{Index: l.Indexes()}, nil }, []string{l.Output().Index, l.Outputs["nonroot"].Index}},
	} {
		signer.digests = nil
		test.edit(l)
		if err := l.Write(r.path(lockName)); err != nil {
			t.Fatal(err)
		}
		if err := run(VEX); err != nil || !slices.Equal(signer.digests, test.want) {
			t.Errorf("%s: %q, %v", test.what, signer.digests, err)
		}
	}
	r.Images = Digests{lock.Default: "sha256:" + strings.Repeat("0", 64)}
	if err := run(VEX); err == nil || !strings.Contains(err.Error(), "expected the images") {
		t.Errorf("another image: %v", err)
	}
}
