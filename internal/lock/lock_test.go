package lock

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// digest is a well-formed digest whose hex digits are all c.
func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

const sum = "h1:M1czCAtMuIcg+2Z+FBPbJyAk3ZEQGEFKnvHthtE1c6M="

// sample is a small lock with outputs.
func sample() *Lock {
	output := func(p Platform, c string) PlatformOutput {
		return PlatformOutput{
			Platform:    p,
			Binaries:    []Binary{{"derper", digest(c)}, {"tailscaled", digest("b")}},
			Layers:      []Layer{{"base", digest("1"), digest("2"), 0, 0}, {"derper", digest("3"), digest("4"), 100, 200}},
			Config:      digest("5"),
			Manifest:    digest("6"),
			Attestation: digest("7"),
		}
	}
	in, _ := Defaults().Of(Default)
	in.Programs[1].Features = nil // which change with what is needed
	in.Tailscale = Tailscale{
		Version: "v1.102.3",
		Commit:  "53a0d659afa51835dd7a9283873cca44261454f8",
		Time:    time.Date(2026, 8, 19, 19, 7, 43, 0, time.UTC),
		Sum:     sum,
	}
	in.Go = Go{Version: "go1.26.8", Sums: map[string]string{
		"linux/amd64": sum, "linux/arm64": sum, "darwin/amd64": sum, "darwin/arm64": sum,
	}}
	in.Roots = Module{Version: "v0.0.0-20261030153154-30a33513ff6d", Sum: sum}
	in.Platforms = []Platform{"linux/amd64", "linux/arm/v7"}
	in.Revision = 1
	return &Lock{
		Schema: 2,
		Inputs: in,
		Outputs: map[string]*Output{Default: {
			Index:     digest("f"),
			Platforms: []PlatformOutput{output("linux/amd64", "a"), output("linux/arm/v7", "c")},
		}},
		Published: &Published{Revision: 0, Index: map[string]string{Default: digest("e")}},
	}
}

func sampleBytes(t testing.TB) []byte {
	t.Helper()
	data, err := sample().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	withoutOutputs := sample()
	withoutOutputs.Outputs = nil
	for name, l := range map[string]*Lock{"with outputs": sample(), "without outputs": withoutOutputs} {
		t.Run(name, func(t *testing.T) {
			first, err := l.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := Parse(first)
			if err != nil {
				t.Fatal(err)
			}
			second, err := parsed.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, second) {
				t.Errorf("Parse then Bytes is no fixed point:\n%s\n%s", first, second)
			}
			if (parsed.Outputs == nil) != (l.Outputs == nil) {
				t.Errorf("outputs came or went: %v", parsed.Outputs)
			}
		})
	}
}

// Indentation is the reader's own; the canonical form takes it away.
func TestCanonicalForm(t *testing.T) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, sampleBytes(t)); err != nil {
		t.Fatal(err)
	}
	l, err := Parse(compact.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if want := sampleBytes(t); !bytes.Equal(got, want) {
		t.Errorf("the same lock, indented otherwise, gives other bytes:\n%s", got)
	}
	if !bytes.HasSuffix(got, []byte("\n}\n")) {
		t.Errorf("does not end with one newline: %q", got[len(got)-4:])
	}
}

// The lock in the checkout is what a build writes, so that --update-lock changes
// nothing but what did change.
func TestRepositoryLockIsCanonical(t *testing.T) {
	name := filepath.Join("..", "..", File)
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Read(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not in canonical form; it should be:\n%s", File, got)
	}
}

// The tags decide what an image is, and not the features that they were made from.
func TestImageWithoutFeatures(t *testing.T) {
	in := sample().Inputs
	in.Programs[1].Features, in.Programs[1].Tags = []string{"health"}, []string{"ts_omit_ssh"}
	if p := in.Image().Programs[1]; p.Features != nil || len(p.Tags) != 1 {
		t.Errorf("%+v", p)
	}
	if len(in.Programs[1].Features) != 1 {
		t.Error("the lock's own features are gone")
	}
}

// The tools of this project are a program as any, of a module that has no version in the lock;
// no other package of it is.
func TestOwnProgram(t *testing.T) {
	l := sample()
	l.Outputs = nil
	l.Inputs.Programs = append(l.Inputs.Programs, Program{Package: ToolsPackage})
	l.Inputs.Variants[0].Programs = append(l.Inputs.Variants[0].Programs, "tools")
	data, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(data); err != nil {
		t.Error(err)
	}
	if from := l.Inputs.SourceOf(l.Inputs.Programs[2]); !from.Own() || from.Module.Version != "" {
		t.Errorf("the tools are of %v", from)
	}
	for old, refused := range map[string]string{
		`"` + ToolsPackage + `"`: `"` + ToolsPackage + `/other"`,
		`/derper/tools"`:         `/derper/tools", "buildTags": ["x"]`,
	} {
		if _, err := Parse(bytes.Replace(data, []byte(old), []byte(refused), 1)); err == nil || !strings.Contains(err.Error(), "inputs.programs[2]") {
			t.Errorf("%s: %v", refused, err)
		}
	}
}

func TestStamps(t *testing.T) {
	in := sample().Inputs.Tailscale
	if in.Short() != "1.102.3" {
		t.Errorf("Short: %s", in.Short())
	}
	if want := "1.102.3-t53a0d659a"; in.Long() != want {
		t.Errorf("Long: %s, not %s", in.Long(), want)
	}
	if got, want := sample().Inputs.Go.Module("linux/amd64").String(), "golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64"; got != want {
		t.Errorf("Module: %s, not %s", got, want)
	}
}

func TestPlatform(t *testing.T) {
	for _, test := range []struct {
		in, want, os, arch, variant, slug string
	}{
		{"linux/amd64", "linux/amd64", "linux", "amd64", "", "linux-amd64"},
		{"linux/arm/v5", "linux/arm/v5", "linux", "arm", "v5", "linux-arm-v5"},
		{"linux/arm", "linux/arm/v7", "linux", "arm", "v7", "linux-arm-v7"},
		{"linux/arm64/v8", "linux/arm64", "linux", "arm64", "", "linux-arm64"},
	} {
		p, err := ParsePlatform(test.in)
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		if string(p) != test.want {
			t.Errorf("%s is read as %s, not %s", test.in, p, test.want)
		}
		if p.OS() != test.os || p.Arch() != test.arch || p.Variant() != test.variant || p.Slug() != test.slug {
			t.Errorf("%s: parts %q %q %q %q", p, p.OS(), p.Arch(), p.Variant(), p.Slug())
		}
	}
	for _, bad := range []string{"", "linux", "amd64", "windows/amd64", "linux/arm/v4", "linux/amd64/v3", "Linux/amd64", " linux/amd64"} {
		if p, err := ParsePlatform(bad); err == nil {
			t.Errorf("%q is read as %s", bad, p)
		} else if !strings.Contains(err.Error(), "linux/amd64, linux/386") {
			t.Errorf("%q: error does not list what is known: %v", bad, err)
		}
	}
	for _, p := range Known {
		if got, err := ParsePlatform(string(p)); err != nil || got != p {
			t.Errorf("known platform %s: %s, %v", p, got, err)
		}
	}
}

// TestParsePlatforms guards the one reader of --platform.
func TestParsePlatforms(t *testing.T) {
	all := []Platform{"linux/s390x", "linux/arm/v7", "linux/amd64", "linux/arm64"}
	if host := Platform("linux/" + runtime.GOARCH); !slices.Contains(all, host) {
		all = append(all, host)
	}
	for list, want := range map[string][]Platform{
		"all":                                 all,
		"linux/arm, all ,linux/arm":           all,
		"host":                                {Platform("linux/" + runtime.GOARCH)},
		"linux/amd64,linux/s390x,linux/amd64": {"linux/s390x", "linux/amd64"},
		" linux/arm64/v8 , linux/arm ":        {"linux/arm/v7", "linux/arm64"},
	} {
		if got, err := ParsePlatforms(list, all); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is read as %v, %v, not %v", list, got, err, want)
		}
	}
	for list, want := range map[string]string{
		"":                   `unknown platform ""`,
		"linux/amd64,":       `unknown platform ""`,
		"all,linux/vax":      `unknown platform "linux/vax"`,
		"linux/ppc64le,host": "linux/ppc64le is not in the lock: it has [linux/s390x",
	} {
		if got, err := ParsePlatforms(list, all); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is read as %v, %v, not %q", list, got, err, want)
		}
	}
}

func TestOutputsPlatform(t *testing.T) {
	l := sample()
	if got, ok := l.Output().Platform("linux/arm/v7"); !ok || got.Platform != "linux/arm/v7" {
		t.Errorf("linux/arm/v7: %v %v", got, ok)
	}
	if _, ok := l.Output().Platform("linux/386"); ok {
		t.Error("linux/386 is found, and is not there")
	}
	if _, ok := (*Output)(nil).Platform("linux/386"); ok {
		t.Error("found among no outputs at all")
	}
}
