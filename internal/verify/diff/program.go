package diff

import (
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/limit"
)

// answer is how two programs differ.
type answer struct {
	Summary string
	Details []string
}

// comparing compares two programs, the wanted one behind its size in eight bytes.
var comparing = gobinary.NewJob("diff", func(r io.Reader) (a answer, err error) {
	var size uint64
	if err := binary.Read(r, binary.BigEndian, &size); err != nil {
		return a, err
	}
	if size > gobinary.MaxProgram {
		return a, fmt.Errorf("rebuilt program: %w: %d bytes", limit.Err, size)
	}
	want := make([]byte, size)
	if _, err := io.ReadFull(r, want); err != nil {
		return a, fmt.Errorf("rebuilt program: %w", err)
	}
	got, err := limit.ReadAll(r, gobinary.MaxProgram)
	if err == nil {
		a.Summary, a.Details, err = compare(want, got)
	}
	return a, err
})

// Programs says how two compiled programs differ, the wanted one of so many bytes: in a
// sentence or two for people, and in lines, the most telling first. It is a [gobinary.Job]:
// the error says nothing of the programs.
func Programs(ctx context.Context, want io.Reader, size int64, got io.Reader) (summary string, details []string, err error) {
	head := binary.BigEndian.AppendUint64(nil, uint64(size))
	a, err := comparing.Run(ctx, io.MultiReader(bytes.NewReader(head), want, got))
	return a.Summary, a.Details, err
}

// compare says how two compiled programs differ: in a sentence or two for people, and in
// lines, the most telling first. What one of the two is itself comes before what Go wrote
// into it, that before its code and its data. The error is for a wanted one that cannot be
// read; of the one that was got, nothing is expected.
func compare(want, got []byte) (summary string, details []string, err error) {
	w, err := gobinary.Parse(want)
	if err != nil {
		return "", nil, fmt.Errorf("rebuilt program: %w", err)
	}
	g, err := gobinary.Parse(got)
	if err != nil {
		return "The image's file is not a program that Go compiled: " + short(err.Error()) + ".", nil, nil
	}
	d := &differ{}
	machine := func(f *elf.File) string {
		name := strings.TrimPrefix(f.Machine.String(), "EM_")
		return fmt.Sprintf("%s, %s bit, %s", name, strings.TrimPrefix(f.Class.String(), "ELFCLASS"), strings.TrimPrefix(f.Data.String(), "ELFDATA2"))
	}
	d.value("machine", machine(w.ELF), machine(g.ELF), "The image's program is for another architecture: %s, where the rebuilt one is for %s.")
	if d.summary == "" { // code for two machines has nothing in common
		d.info(w.Info, g.Info)
		d.stamps(want, got)
		d.code(w, g)
	}
	return d.summary, d.details, nil
}

// differ collects what differs. The first cause that is set is the summary.
type differ struct {
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

// value compares one thing that is said of two programs.
func (d *differ) value(what, want, got, sentence string) {
	if want != got {
		d.detail("%s: image %s, rebuilt %s", what, got, want)
		d.set(sentence, got, want)
	}
}

// values compares many things of a kind.
func (d *differ) values(what string, want, got map[string]string, sentence string) {
	var lines []string
	list := changes(want, got)
	for _, c := range list {
		c.Path = what + " " + short(c.Path)
		lines = append(lines, c.String())
	}
	d.list(lines, what)
	if len(lines) > 0 {
		d.set(sentence, strings.TrimPrefix(lines[0], what+" "), len(lines))
	}
}

// listed is how many details of a kind are listed.
const listed = 12

// list adds details, not too many of them.
func (d *differ) list(lines []string, what string) {
	d.details = append(d.details, lines[:min(len(lines), listed)]...)
	if more := len(lines) - listed; more > 0 {
		d.detail("and %s", Plural(more, "more "+what))
	}
}

// info compares what the Go command wrote into the programs.
// Source: go version -m, runtime/debug.BuildInfo.
func (d *differ) info(w, g *debug.BuildInfo) {
	d.value("Go", w.GoVersion, short(g.GoVersion), "The image's program says that %s compiled it; the rebuilt one was compiled by %s.")
	d.value("package", w.Path, short(g.Path), "The image's program says that it is %s, where the rebuilt one is %s.")
	d.value("main module", moduleName(&w.Main), moduleName(&g.Main), "The image's program says that it was compiled from %s, the rebuilt one from %s.")
	modules := func(info *debug.BuildInfo) map[string]string {
		m := map[string]string{}
		for _, dep := range info.Deps {
			m[dep.Path] = moduleName(dep)
		}
		return m
	}
	d.values("module", modules(w), modules(g), "The image's program links other modules than the rebuilt one: %[1]s, and the like (%[2]d).")
	settings := func(info *debug.BuildInfo) map[string]string {
		m := map[string]string{}
		for _, s := range info.Settings {
			m[s.Key] = cmp.Or(s.Value, `""`)
		}
		return m
	}
	d.values("build setting", settings(w), settings(g), "The image's program says that it was built with other settings: %[1]s.")
}

func moduleName(m *debug.Module) string {
	s := short(m.Path) + " " + short(m.Version)
	if m.Sum != "" {
		s += " " + short(m.Sum)
	}
	if m.Replace != nil {
		s += " => " + moduleName(m.Replace)
	}
	return s
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
	d.value("stamp", strings.Join(onlyW, ", "), strings.Join(onlyG, ", "), "The image's program is stamped with another revision: %s, where the rebuilt one has %s.")
}
