package diff

import (
	"bufio"
	"context"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/ctxio"
)

// A Cause is what makes two programs differ, as far as they tell.
type Cause string

// Causes, the first that applies counts.
const (
	CauseForm      Cause = "form"      // the one that was got is no Go program
	CauseMachine   Cause = "machine"   // they are for different architectures
	CauseGo        Cause = "go"        // another Go compiled it
	CauseModule    Cause = "module"    // it is another program, or of another revision
	CauseModules   Cause = "modules"   // other modules are linked
	CauseSettings  Cause = "settings"  // it was built with other settings
	CauseRevision  Cause = "revision"  // it is stamped with another revision
	CauseFlags     Cause = "flags"     // it was linked with other flags
	CauseCode      Cause = "code"      // nothing of the above: functions differ
	CauseData      Cause = "data"      // nothing of the above: only data differs
	CauseElsewhere Cause = "elsewhere" // outside of all sections
)

// A ProgramDiff says how two programs differ.
type ProgramDiff struct {
	Cause Cause
	// Summary is a sentence or two for people.
	Summary string
	// Details are lines, the most telling first.
	Details []string
}

// Programs compares two compiled programs that differ, in the named files. The
// error is for a wanted one that cannot be read; of the one that was got, nothing is
// expected.
func Programs(ctx context.Context, want, got string) (*ProgramDiff, error) {
	w, err := openProgram(want)
	if err != nil {
		return nil, fmt.Errorf("rebuilt program: %w", err)
	}
	defer w.file.Close()
	g, err := openProgram(got)
	if err != nil {
		return &ProgramDiff{CauseForm, "The image's file is not a program that Go compiled: " + Printable(err.Error()) + ".", nil}, nil
	}
	defer g.file.Close()
	d := &differ{ctx: ctx}
	d.machine(w, g)
	if d.cause == "" { // code for two machines has nothing in common
		d.info(w.info, g.info)
		d.stamps(want, got)
		if err := d.code(w, g); err != nil {
			return nil, err
		}
	}
	return &ProgramDiff{d.cause, d.summary, d.details}, nil
}

// program is a compiled program that is open.
type program struct {
	file *os.File
	elf  *elf.File
	info *debug.BuildInfo
}

// openProgram opens a program of which nothing is known: debug/elf and
// debug/buildinfo do not promise not to panic.
func openProgram(name string) (p *program, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed: %v", r)
		}
		if err != nil {
			f.Close()
		}
	}()
	p = &program{file: f}
	if p.elf, err = elf.NewFile(f); err != nil {
		return nil, err
	}
	if p.info, err = buildinfo.Read(f); err != nil {
		return nil, errors.New("no Go build information in it")
	}
	return p, nil
}

// differ collects what differs. The first cause that is set stays.
type differ struct {
	ctx     context.Context
	cause   Cause
	summary string
	details []string
}

func (d *differ) set(c Cause, format string, args ...any) {
	if d.cause == "" {
		d.cause, d.summary = c, fmt.Sprintf(format, args...)
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
		d.detail("and %s", plural(more, "more "+what))
	}
}

func (d *differ) machine(w, g *program) {
	of := func(f *elf.File) string {
		return fmt.Sprintf("%s, %s, %s", strings.TrimPrefix(f.Machine.String(), "EM_"), strings.TrimPrefix(f.Class.String(), "ELFCLASS")+" bit", strings.TrimPrefix(f.Data.String(), "ELFDATA2"))
	}
	if a, b := of(g.elf), of(w.elf); a != b {
		d.detail("machine: image %s, rebuilt %s", a, b)
		d.set(CauseMachine, "The image's program is for another architecture: %s, where the rebuilt one is for %s.", a, b)
	}
}

// info compares what the Go command wrote into the programs.
// Source: go version -m, runtime/debug.BuildInfo.
func (d *differ) info(w, g *debug.BuildInfo) {
	if w.GoVersion != g.GoVersion {
		d.detail("Go: image %s, rebuilt %s", short(g.GoVersion), w.GoVersion)
		d.set(CauseGo, "The image's program says that %s compiled it; the rebuilt one was compiled by %s.", short(g.GoVersion), w.GoVersion)
	}
	if w.Path != g.Path {
		d.detail("package: image %s, rebuilt %s", short(g.Path), w.Path)
		d.set(CauseModule, "The image's program says that it is %s, where the rebuilt one is %s.", short(g.Path), w.Path)
	}
	if a, b := moduleName(&g.Main), moduleName(&w.Main); a != b {
		d.detail("main module: image %s, rebuilt %s", a, b)
		d.set(CauseModule, "The image's program says that it was compiled from %s, the rebuilt one from %s.", a, b)
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
	byPath := func(list []*debug.Module) map[string]string {
		m := map[string]string{}
		for _, dep := range list {
			m[dep.Path] = moduleName(dep)
		}
		return m
	}
	lines := d.maps("module", byPath(want), byPath(got))
	if len(lines) > 0 {
		d.set(CauseModules, "The image's program links other modules than the rebuilt one: %s, and the like (%d).", strings.TrimPrefix(lines[0], "module "), len(lines))
	}
	d.list(lines, "module")
}

func (d *differ) settings(want, got []debug.BuildSetting) {
	byKey := func(list []debug.BuildSetting) map[string]string {
		m := map[string]string{}
		for _, s := range list {
			m[s.Key] = s.Value
		}
		return m
	}
	lines := d.maps("build setting", byKey(want), byKey(got))
	if len(lines) > 0 {
		d.set(CauseSettings, "The image's program says that it was built with other settings: %s.", strings.TrimPrefix(lines[0], "build setting "))
	}
	d.list(lines, "build setting")
}

// maps lists how two maps of strings differ.
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
	return lines
}

// stamped finds the versions that the linker puts into programs of a tailscale
// release: 1.102.3-t53a0d659a, and a commit. Source: tailscale build_dist.sh.
var stamped = regexp.MustCompile(`1\.[0-9]{1,4}\.[0-9]{1,6}-t[0-9a-f]{9}|[0-9a-f]{40}`)

// stamps compares the revisions that are stamped into the programs.
func (d *differ) stamps(want, got string) {
	w, errW := findAll(d.ctx, want, stamped)
	g, errG := findAll(d.ctx, got, stamped)
	if errW != nil || errG != nil {
		return // then there is no such hint
	}
	only := func(a, b map[string]bool) (list []string) {
		for _, s := range slices.Sorted(maps.Keys(a)) {
			if !b[s] {
				list = append(list, s)
			}
		}
		return list
	}
	onlyG, onlyW := only(g, w), only(w, g)
	if len(onlyG) == 0 || len(onlyW) == 0 || len(onlyG) > 4 || len(onlyW) > 4 {
		return // nothing, or strings that only look like stamps
	}
	a, b := strings.Join(onlyG, ", "), strings.Join(onlyW, ", ")
	d.detail("stamp: image %s, rebuilt %s", a, b)
	d.set(CauseRevision, "The image's program is stamped with another revision: %s, where the rebuilt one has %s.", a, b)
}

// findAll finds the distinct matches of an expression in a file. Matches are shorter
// than overlap bytes.
func findAll(ctx context.Context, name string, expr *regexp.Regexp) (map[string]bool, error) {
	const overlap, step = 64, 1 << 20
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found := map[string]bool{}
	in := bufio.NewReaderSize(ctxio.Reader(ctx, f), step)
	window := make([]byte, 0, overlap+step)
	for {
		n, err := io.ReadFull(in, window[len(window):cap(window)])
		window = window[:len(window)+n]
		for _, m := range expr.FindAll(window, -1) {
			if len(found) < 1<<14 {
				found[string(m)] = true
			}
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		window = append(window[:0], window[len(window)-overlap:]...)
	}
}
