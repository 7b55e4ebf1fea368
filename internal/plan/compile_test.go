package plan

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
)

// This is the command that the README shows, by which anybody gets the same
// binaries.
func TestInstallArgs(t *testing.T) {
	got := strings.Join(InstallArgs(inputs(), inputs().Programs...), "\n")
	const want = `go
install
-trimpath
-buildvcs=false
-ldflags=-s -w -X tailscale.com/version.shortStamp=1.102.3 -X tailscale.com/version.longStamp=1.102.3-t53a0d659a -X tailscale.com/version.gitCommitStamp=53a0d659afa51835dd7a9283873cca44261454f8
tailscale.com/cmd/derper@v1.102.3
tailscale.com/cmd/tailscaled@v1.102.3`
	if got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
}

// Build tags are a part of the command, and programs with others have one of their own.
func TestTags(t *testing.T) {
	in := inputs()
	in.Programs[1].Tags = []string{"ts_omit_aws", "ts_omit_ssh"}
	args := InstallArgs(in, in.Programs[1])
	if n := len(args); args[n-2] != "-tags=ts_omit_aws,ts_omit_ssh" || args[n-1] != "tailscale.com/cmd/tailscaled@v1.102.3" {
		t.Errorf("%q", args)
	}
	var compiled []string
	before, after := keys(t, newPlan(t, inputs(), sources(), host)), keys(t, newPlan(t, in, sources(), host))
	for id := range after {
		if strings.HasPrefix(id, "compile ") {
			compiled = append(compiled, id)
		}
	}
	slices.Sort(compiled)
	if want := []string{"compile derper linux/amd64", "compile derper linux/arm/v6", "compile tailscaled linux/amd64", "compile tailscaled linux/arm/v6"}; !slices.Equal(compiled, want) {
		t.Errorf("compiled: %v", compiled)
	}
	if before["layer tailscaled linux/amd64"] == after["layer tailscaled linux/amd64"] || before["layer entrypoint linux/amd64"] != after["layer entrypoint linux/amd64"] {
		t.Error("tags of tailscaled: its layer's key stays, or that of the entrypoint moves")
	}
}

// The tools of this project are compiled where their source is. Their key is moved by what
// they are made of, and by nothing that tailscale is.
func TestOwnProgram(t *testing.T) {
	in := inputs()
	in.Programs = append(in.Programs, lock.Program{Package: lock.ToolsPackage})
	in.Variants[0].Programs = append(slices.Clone(in.Variants[0].Programs), "tools")
	const want = "go install -trimpath -buildvcs=false -ldflags=-s -w -buildid= ./tools"
	if got := strings.Join(InstallArgs(in, in.Programs[2]), " "); got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	const id = "compile-own tools linux/amd64"
	before := keys(t, newPlan(t, in, sources(), host))
	if before[id] == "" {
		t.Fatalf("no %s among %v", id, before)
	}
	other := in
	other.Tailscale.Version, other.Tailscale.Sum = "v1.102.4", "h1:other"
	if after := keys(t, newPlan(t, other, sources(), host)); after[id] != before[id] {
		t.Error("another release of tailscale moves the key of the tools")
	}
	changed := sources()
	changed[Tools] = "another"
	if after := keys(t, newPlan(t, in, changed, host)); after[id] == before[id] || after["compile derper linux/amd64"] != before["compile derper linux/amd64"] {
		t.Error("another source of the tools leaves their key as it is, or moves that of derper")
	}
}

func TestSettings(t *testing.T) {
	var names []string
	for _, p := range lock.Known {
		env := map[string]string{}
		var these []string
		for _, s := range Settings(p) {
			name, value, ok := strings.Cut(s, "=")
			if _, twice := env[name]; twice || !ok {
				t.Errorf("%s: %s stands twice or is no setting", p, s)
			}
			env[name] = value
			these = append(these, name)
		}
		if names == nil {
			names = these
		} else if !slices.Equal(names, these) {
			t.Errorf("%s: sets %v, others set %v", p, these, names)
		}
		wantARM := cmp.Or(map[lock.Platform]string{"linux/arm/v5": "5", "linux/arm/v6": "6"}[p], "7")
		for name, want := range map[string]string{
			"GOOS": "linux", "GOARCH": strings.Split(string(p), "/")[1], "GOARM": wantARM,
			"CGO_ENABLED": "0", "GOAMD64": "v1", "GO386": "sse2", "GOARM64": "v8.0", "GOPPC64": "power8", "GORISCV64": "rva20u64",
			"GOFLAGS": "", "GOEXPERIMENT": "", "GODEBUG": "", "GOENV": "off", "GOWORK": "off", "GOTOOLCHAIN": "local", "GOFIPS140": "off",
		} {
			if got, ok := env[name]; !ok || got != want {
				t.Errorf("%s: %s=%q, not %q", p, name, got, want)
			}
		}
	}
}

func TestChanges(t *testing.T) {
	action := func() *Action {
		return &Action{
			Kind:    "compile",
			Inputs:  map[string]string{"a@v1": "h1:a", "source": "sha256:1"},
			Env:     []string{"A=1", "B=2"},
			Args:    []string{"go", "install", "x@v1"},
			Outputs: []string{"x"},
		}
	}
	for name, test := range map[string]struct {
		change func(*Action)
		want   []string
	}{
		"nothing": {func(*Action) {}, nil},
		"an input's content": {func(a *Action) { a.Inputs["source"] = "sha256:2" },
			[]string{"input source changed: sha256:1 → sha256:2"}},
		"an input's version": {func(a *Action) { delete(a.Inputs, "a@v1"); a.Inputs["a@v2"] = "h1:b" },
			[]string{"input a@v1 is gone: h1:a", "input a@v2 is new: h1:b"}},
		"a setting": {func(a *Action) { a.Env[1] = "B=3" },
			[]string{"environment changed: -B=2 +B=3"}},
		"a setting more": {func(a *Action) { a.Env = append(a.Env, "C=") },
			[]string{"environment changed: +C="}},
		"the order of settings": {func(a *Action) { slices.Reverse(a.Env) },
			[]string{"environment changed: order"}},
		"the command": {func(a *Action) { a.Args[2] = "x@v2" },
			[]string{"command changed: -x@v1 +x@v2"}},
		"the outputs": {func(a *Action) { a.Outputs = append(a.Outputs, "y") },
			[]string{"outputs changed: +y"}},
		"much": {func(a *Action) { a.Inputs["source"] = "sha256:2"; a.Env[0] = "A=2"; a.Args[1] = "build" },
			[]string{"input source changed: sha256:1 → sha256:2", "environment changed: -A=1 +A=2", "command changed: -install +build"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := action()
			test.change(a)
			if got := a.Changes(action()); !slices.Equal(got, test.want) {
				t.Errorf("%q, not %q", got, test.want)
			}
			// What moves the key is said, and what does not is not.
			if moved, said := a.Key() != action().Key(), len(a.Changes(action())) > 0; moved != said {
				t.Errorf("key moves: %v, said: %v", moved, said)
			}
		})
	}
}
