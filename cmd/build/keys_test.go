package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// TestEditsMoveKeys guards that a cache never gives what the code as it is would not make:
// a program that is compiled with another line, in any package that decides bytes, has
// other keys for what that decides; and with a line in another package it has the same.
// Each week all lines are changed, otherwise one of those that move the same keys.
func TestEditsMoveKeys(t *testing.T) {
	need.Minutes(t, "this program compiled again and again")
	const (
		compiled = "roots compile entrypoint flags base tailscaled derper own attestation"
		layers   = "layers attestation"
		all      = "roots compile entrypoint flags " + layers
	)
	edits := []struct{ file, line, other, moves string }{
		{"internal/image/base.go", "PATENTS|UNLICENSE", "PATENTS", layers},                     // notices
		{"internal/image/layer.go", "gzip.BestCompression", "gzip.BestSpeed", layers},          //
		{"internal/image/layer.go", "f.Mode |= fs.ModeSticky", "f.Mode |= 0", layers},          // modes of a variant's files
		{"internal/pipeline/stages.go", `"usr/local/bin/"`, `"usr/bin/"`, all},                 // folder of the programs
		{"internal/pipeline/stages.go", "ca-certificates/left-out.txt", "left-out.txt", all},   // name of a file
		{"internal/toolchain/run.go", `"GOCACHE="`, `"GOAMD64=v3", "GOCACHE="`, compiled},      // closed environment
		{"internal/roots/generate/main.go", `"# %s\n"`, `"## %s\n"`, "roots base attestation"}, //
		{"internal/roots/roots.go", `"LICENSE":`, `"LICENSE" + "":`, "roots base attestation"}, //
		{"internal/attest/licence.go", `" AND "`, `" and "`, "attestation"},                    // separator of licences
		{"internal/attest/embed.go", "SPDX}, sbom}", "SLSA}, sbom}", "attestation"},            //
		{"internal/lock/platform.go", `return p.part(2)`, `return "x" + p.part(2)`, "attestation"},
		{"internal/plan/compile.go", `"-trimpath", "-buildvcs=false", flags}`, `"-buildvcs=false", flags}`, "compile tailscaled derper flags own attestation"},
		{"entrypoint/main.go", "no such command", "no command", "entrypoint flags own attestation"},
		{"internal/flags/define.go", "p.Name() == \"value\"", "p.Name() == \"values\"", "flags own attestation"},
		{"derper.go", "// Module is", "// Module is not", "entrypoint layers attestation"},
		{"LICENSE", "Copyright", "Copyleft", "base attestation"},
		{"tools/main.go", "no tool", "no such tool", ""}, // no variant of the lock has them
		{"cmd/build/image.go", "unchanged", "the same", ""},
		{"cmd/build/plan.go", "build plan --platform", "build plan  --platform", ""},
		{"internal/cli/cli.go", `"hint: %s\n"`, `"do: %s\n"`, ""},
		{"internal/registry/push.go", "no repository to push to", "none", ""},
		{"internal/verify/explain.go", " on all ", " everywhere: ", ""},
		{"internal/cache/cache.go", "is not a cache that build made", "is none", ""},
	}
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	l.Outputs = nil
	l.Inputs.Variants[0].Files = []lock.Entry{{Path: "tmp/shared/", Mode: "01777"}} // so that there is every layer
	lockFile := filepath.Join(t.TempDir(), lock.File)
	if err := l.Write(lockFile); err != nil {
		t.Fatal(err)
	}
	before := keysOf(t, lockFile, "", "")
	kinds := map[string]string{"layer base": "base", "layer tailscaled": "tailscaled", "layer derper": "derper", "layer entrypoint": "own", "layer files": "files"}
	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "FILE\tLINE\tKEYS THAT MOVED")
	edited, done := map[string]bool{}, map[string]bool{}
	for _, e := range edits {
		edited[filepath.Dir(e.file)] = true
		edited[e.file] = true
		name := filepath.Join("../..", e.file)
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(content), e.line) == 0 {
			t.Fatalf("%s has no %q: the test edits nothing", e.file, e.line)
		}
		if done[e.moves] && !need.HasAWeek(t) {
			continue
		}
		done[e.moves] = true
		after := keysOf(t, lockFile, name, strings.Replace(string(content), e.line, e.other, 1))
		var moved []string
		for _, id := range slices.Sorted(maps.Keys(before)) {
			kind := kinds[id]
			if kind == "" {
				kind, _, _ = strings.Cut(id, " ")
			}
			want := slices.Contains(strings.Fields(e.moves), kind) || kinds[id] != "" && strings.Contains(e.moves, "layers")
			if after[id] != before[id] {
				moved = append(moved, id)
			}
			if moves := after[id] != before[id]; moves != want {
				t.Errorf("%s, %s: the key of %s moves: %v, should: %v", e.file, e.line, id, moves, want)
			}
		}
		said := strings.Join(moved, ", ")
		if len(moved) == len(before) {
			said = "all"
		} else if len(moved) == 0 {
			said = "none"
		}
		fmt.Fprintf(rows, "%s\t%.40q\t%s\n", e.file, e.line, said)
	}
	rows.Flush()
	t.Logf("\n%s", &table)
	// A package that is said to decide bytes needs a line above.
	for _, name := range plan.Names() {
		if !strings.Contains(name, ".com/") && !strings.HasPrefix(name, "golang.org/") && name != plan.CompiledBy && !edited[name] {
			t.Errorf("not edited: %s", name)
		}
	}
}

// keysOf are the keys of this machine's platform by action, planned by a program that is
// compiled with other content in one file.
func keysOf(t *testing.T, lockFile, file, content string) map[string]string {
	t.Helper()
	cmd := exec.Command(changedProgram(t, file, content), "plan", "--json", "--lock", lockFile)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var p planResult
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for _, a := range p.Actions {
		keys[strings.TrimSuffix(a.Name, " "+string(a.Action.Platform))] = a.Key
	}
	return keys
}

// changedProgram compiles this program with another content of one of its files; "" for
// none.
func changedProgram(t *testing.T, file, content string) (program string) {
	t.Helper()
	dir := t.TempDir()
	program = filepath.Join(dir, "build")
	overlay := map[string]map[string]string{"Replace": {}}
	if file != "" {
		name, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][name] = filepath.Join(dir, "changed")
		write(t, filepath.Join(dir, "changed"), content)
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), string(data))
	// Without symbols: it is linked in a moment.
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags=-s -w", "-buildvcs=false", "-o", program, "./cmd/build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, out)
	}
	return program
}
