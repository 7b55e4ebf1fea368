package diff

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// Programs says how two compiled programs differ: in a sentence or two for people, and in
// lines, the most telling first. What one of the two is itself comes before what Go wrote
// into it, that before its code and its data. The error is for a wanted one that cannot be
// read, and ctx's; of the one that was got, nothing is expected.
func Programs(ctx context.Context, want, got []byte) (summary string, details []string, err error) {
	w, err := parseProgram(want)
	if err != nil {
		return "", nil, fmt.Errorf("rebuilt program: %w", err)
	}
	g, err := parseProgram(got)
	if err != nil {
		return "The image's file is not a program that Go compiled: " + Printable(err.Error()) + ".", nil, nil
	}
	d := &differ{ctx: ctx}
	d.machine(w, g)
	if d.summary == "" { // code for two machines has nothing in common
		d.info(w.info, g.info)
		d.stamps(want, got)
		err = d.code(w, g)
	}
	return d.summary, d.details, err
}

// program is a compiled program.
type program struct {
	data []byte
	elf  *elf.File
	info *debug.BuildInfo
}

// parseProgram parses a program of which nothing is known: debug/elf and
// debug/buildinfo do not promise not to panic.
func parseProgram(data []byte) (p *program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed: %v", r)
		}
	}()
	p = &program{data: data}
	if p.elf, err = elf.NewFile(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	if p.info, err = buildinfo.Read(bytes.NewReader(data)); err != nil {
		return nil, errors.New("no Go build information in it")
	}
	return p, nil
}

// differ collects what differs. The first cause that is set is the summary.
type differ struct {
	ctx     context.Context
	summary string
	details []string
}

func (d *differ) set(format string, args ...any) {
	if d.summary == "" {
		d.summary = fmt.Sprintf(format, args...)
	}
}

func (d *differ) detail(format string, args ...any) {
	d.details = append(d.details, fmt.Sprintf(format, args...))
}

// limit is how many details of a kind are listed.
const limit = 12

// list adds details, not too many of them.
func (d *differ) list(lines []string, what string) {
	d.details = append(d.details, lines[:min(len(lines), limit)]...)
	if more := len(lines) - limit; more > 0 {
		d.detail("and %s", Plural(more, "more "+what))
	}
}

func (d *differ) machine(w, g *program) {
	of := func(f *elf.File) string {
		return fmt.Sprintf("%s, %s, %s", strings.TrimPrefix(f.Machine.String(), "EM_"), strings.TrimPrefix(f.Class.String(), "ELFCLASS")+" bit", strings.TrimPrefix(f.Data.String(), "ELFDATA2"))
	}
	if a, b := of(g.elf), of(w.elf); a != b {
		d.detail("machine: image %s, rebuilt %s", a, b)
		d.set("The image's program is for another architecture: %s, where the rebuilt one is for %s.", a, b)
	}
}

// info compares what the Go command wrote into the programs.
// Source: go version -m, runtime/debug.BuildInfo.
func (d *differ) info(w, g *debug.BuildInfo) {
	if w.GoVersion != g.GoVersion {
		d.detail("Go: image %s, rebuilt %s", short(g.GoVersion), w.GoVersion)
		d.set("The image's program says that %s compiled it; the rebuilt one was compiled by %s.", short(g.GoVersion), w.GoVersion)
	}
	if w.Path != g.Path {
		d.detail("package: image %s, rebuilt %s", short(g.Path), w.Path)
		d.set("The image's program says that it is %s, where the rebuilt one is %s.", short(g.Path), w.Path)
	}
	if a, b := moduleName(&g.Main), moduleName(&w.Main); a != b {
		d.detail("main module: image %s, rebuilt %s", a, b)
		d.set("The image's program says that it was compiled from %s, the rebuilt one from %s.", a, b)
	}
	d.modules(w.Deps, g.Deps)
	d.settings(w.Settings, g.Settings)
}

func moduleName(m *debug.Module) string {
	if m == nil {
		return "none"
	}
	s := short(m.Path) + " " + short(m.Version)
	if m.Sum != "" {
		s += " " + short(m.Sum)
	}
	if m.Replace != nil {
		s += " => " + moduleName(m.Replace)
	}
	return s
}

func (d *differ) modules(want, got []*debug.Module) {
	byPath := func(m *debug.Module) (string, string) { return m.Path, moduleName(m) }
	lines := d.maps("module", mapOf(want, byPath), mapOf(got, byPath))
	if len(lines) > 0 {
		d.set("The image's program links other modules than the rebuilt one: %s, and the like (%d).", strings.TrimPrefix(lines[0], "module "), len(lines))
	}
}

func (d *differ) settings(want, got []debug.BuildSetting) {
	byKey := func(s debug.BuildSetting) (string, string) { return s.Key, s.Value }
	lines := d.maps("build setting", mapOf(want, byKey), mapOf(got, byKey))
	if len(lines) > 0 {
		d.set("The image's program says that it was built with other settings: %s.", strings.TrimPrefix(lines[0], "build setting "))
	}
}

func mapOf[T any](list []T, entry func(T) (key, value string)) map[string]string {
	m := map[string]string{}
	for _, e := range list {
		key, value := entry(e)
		m[key] = value
	}
	return m
}

// maps lists how two maps of strings differ, and adds it to the details.
func (d *differ) maps(what string, want, got map[string]string) (lines []string) {
	for _, key := range slices.Sorted(maps.Keys(union(want, got))) {
		w, inWant := want[key]
		g, inGot := got[key]
		name := what + " " + short(key)
		switch {
		case w == g && inWant == inGot:
		case !inWant:
			lines = append(lines, fmt.Sprintf("%s: image %s, the rebuilt has none", name, short(g)))
		case !inGot:
			lines = append(lines, fmt.Sprintf("%s: image none, the rebuilt has %s", name, short(w)))
		default:
			lines = append(lines, fmt.Sprintf("%s: image %s, rebuilt %s", name, short(g), short(w)))
		}
	}
	d.list(lines, what)
	return lines
}

// stamped finds the versions that the linker puts into programs of a tailscale
// release: 1.102.3-t53a0d659a, and a commit. Source: tailscale build_dist.sh.
var stamped = regexp.MustCompile(`1\.[0-9]{1,4}\.[0-9]{1,6}-t[0-9a-f]{9}|[0-9a-f]{40}`)

// stamps compares the revisions that are stamped into the programs.
func (d *differ) stamps(want, got []byte) {
	all := func(program []byte) map[string]bool {
		m := map[string]bool{}
		for _, stamp := range stamped.FindAll(program, 1<<14) {
			m[string(stamp)] = true
		}
		return m
	}
	only := func(a, b map[string]bool) []string {
		return slices.DeleteFunc(slices.Sorted(maps.Keys(a)), func(s string) bool { return b[s] })
	}
	w, g := all(want), all(got)
	onlyG, onlyW := only(g, w), only(w, g)
	if len(onlyG) == 0 || len(onlyW) == 0 || len(onlyG) > 4 || len(onlyW) > 4 {
		return // nothing, or strings that only look like stamps
	}
	a, b := strings.Join(onlyG, ", "), strings.Join(onlyW, ", ")
	d.detail("stamp: image %s, rebuilt %s", a, b)
	d.set("The image's program is stamped with another revision: %s, where the rebuilt one has %s.", a, b)
}
