package lock

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper"
)

// DefaultSource is the address of this project's repository.
const DefaultSource = "https://" + derper.Module

// Default is the name of the variant that has no suffix.
const Default = "default"

// ToolsPackage is the package of this project's own that may be among the programs.
const ToolsPackage = derper.Module + "/tools"

// A Program is a program of a tailscale release, or of another module, or [ToolsPackage].
type Program struct {
	// Package is the path of its package, as tailscale.com/cmd/derper. The last
	// element is the program's name.
	Package string `json:"package"`
	// Features are those of upstream's features that it has; what they need is not
	// listed. Nil for all. The tags follow from them, and an update sets them.
	Features []string `json:"features,omitempty"`
	// Tags are the build tags that it is compiled with, sorted.
	Tags []string `json:"buildTags,omitempty"`
	// In is the layer that it is in, with others of the same module and tags; "" for one of
	// its own.
	In string `json:"layer,omitempty"`
}

// Name is the program's name, and that of its file.
func (p Program) Name() string { return path.Base(p.Package) }

// Layer is the name of the layer that the program is in.
func (p Program) Layer() string { return cmp.Or(p.In, p.Name()) }

// A Variant is one of the images that are made of the inputs.
type Variant struct {
	Name string `json:"name"`
	// Programs are the names of those in it, in the order of their layers, lowest and
	// least changing first.
	Programs []string `json:"programs"`
	// Files are in a layer of their own, on top of the others.
	Files []Entry `json:"files,omitempty"`
	// User is the uid, or uid:gid, that a container runs as; "" for root.
	User string `json:"user,omitempty"`
	// Suffix is what its tags end in, as -debug; "" for the default.
	Suffix string `json:"suffix,omitempty"`
	// Budget is the most that a pull of one platform may transfer, in bytes; 0 for any.
	Budget int64 `json:"budgetBytes,omitempty"`
}

// An Entry is a file of a variant, or a folder.
type Entry struct {
	// Path is from the root, without a slash in front. That of a folder ends in one.
	Path string `json:"path"`
	// Mode is in octal, as 0755 or, sticky, 01777.
	Mode string `json:"mode"`
	// Owner is the uid and gid that it belongs to.
	Owner int `json:"owner,omitempty"`
	// Text is what is in a file.
	Text string `json:"text,omitempty"`
	// Link is what a symbolic link names, from the folder that it is in.
	Link string `json:"link,omitempty"`
}

// Defaults are the inputs of a lock that nobody has written yet, without releases.
func Defaults() Inputs {
	const cmd = TailscaleModule + "/cmd/"
	return Inputs{
		Source: DefaultSource,
		Programs: []Program{
			{Package: cmd + "derper"},
			{Package: cmd + "derpprobe", In: client},
			{Package: cmd + "stunc", In: client},
			{Package: cmd + "tailscale", In: client},
			{Package: cmd + "tailscaled", Features: names(Kept)},
			{Package: ToolsPackage},
		},
		Variants:  variants(),
		Platforms: slices.Clone(Known),
		Format:    Format,
	}
}

// client is the layer of upstream's programs for people.
const client = "client"

// Tools are the names that the program of [ToolsPackage] has in the variant for debugging,
// besides /bin/sh.
var Tools = []string{
	"cat", "chmod", "cp", "cut", "date", "df", "env", "find", "grep", "head", "host", "hostname", "id", "ip", "kill", "ls", "mkdir", "mv",
	"nc", "ps", "readlink", "rm", "sh", "sleep", "sort", "ss", "tail", "tee", "touch", "uname", "wc", "wget", "which", "xargs",
}

// variants are the images that are made where nobody has said otherwise. Only the owners of
// the folders that a start writes into make nonroot another one.
func variants() []Variant {
	const budget = 16_500_000
	programs := []string{"tailscaled", "derper"}
	links := []Entry{
		{Path: "bin/sh", Mode: linkMode, Link: "../usr/local/bin/tools"},
		// Where upstream's client looks for tailscaled, to where the entrypoint has it.
		{Path: "var/run/tailscale/tailscaled.sock", Mode: linkMode, Link: "../../../tmp/tailscaled/tailscaled.sock"},
	}
	for _, name := range Tools {
		links = append(links, Entry{Path: "usr/local/bin/" + name, Mode: linkMode, Link: "tools"})
	}
	return []Variant{
		{Name: Default, Programs: programs, Budget: budget},
		{Name: "debug", Suffix: "-debug", Programs: append(slices.Clone(programs), "derpprobe", "stunc", "tailscale", "tools"), Budget: 36_500_000, Files: links},
		{Name: "nonroot", Suffix: "-nonroot", Programs: programs, Budget: budget, User: "65532:65532", Files: []Entry{
			{Path: "root/", Mode: "0755", Owner: 65532},
			{Path: "root/derper-certs/", Mode: "01777", Owner: 65532},
		}},
	}
}

// Variant is the first variant.
func (in Inputs) Variant() Variant {
	if len(in.Variants) == 0 {
		return Variant{}
	}
	return in.Variants[0]
}

// VariantNames are the names of the variants, in their order.
func (in Inputs) VariantNames() (names []string) {
	for _, v := range in.Variants {
		names = append(names, v.Name)
	}
	return names
}

// Of are the inputs of one variant: that variant alone, with its programs.
func (in Inputs) Of(variant string) (Inputs, error) {
	i := slices.IndexFunc(in.Variants, func(v Variant) bool { return v.Name == variant })
	if i < 0 {
		return in, fmt.Errorf("the lock has no variant %q: it has %s", variant, strings.Join(in.VariantNames(), ", "))
	}
	in.Variants = in.Variants[i : i+1 : i+1]
	in.Programs = slices.DeleteFunc(slices.Clone(in.Programs), func(p Program) bool {
		return !slices.Contains(in.Variants[0].Programs, p.Name())
	})
	in.Modules = slices.DeleteFunc(slices.Clone(in.Modules), func(m Source) bool {
		return !slices.ContainsFunc(in.Programs, func(p Program) bool { return m.has(p.Package) })
	})
	return in, nil
}

// Layers are the programs of the first variant, those together that are in one layer, lowest
// first.
func (in Inputs) Layers() (layers [][]Program) {
	for _, name := range in.Variant().Programs {
		i := slices.IndexFunc(in.Programs, func(p Program) bool { return p.Name() == name })
		if i < 0 {
			continue // no lock has that
		}
		p := in.Programs[i]
		if n := slices.IndexFunc(layers, func(l []Program) bool { return l[0].Layer() == p.Layer() }); n >= 0 {
			layers[n] = append(layers[n], p)
		} else {
			layers = append(layers, []Program{p})
		}
	}
	return layers
}

// A Source is a module that programs come from besides tailscale's, with its h1 hash.
type Source struct {
	Path string `json:"path"`
	Module
}

func (s Source) has(pkg string) bool { return strings.HasPrefix(pkg, s.Path+"/") }

// SourceOf is the module that a program comes from: tailscale's, one of Modules, or this
// project's own, which has no version.
func (in Inputs) SourceOf(p Program) Source {
	if p.Package == ToolsPackage {
		return Source{Path: derper.Module}
	}
	for _, s := range in.Sources() {
		if s.has(p.Package) {
			return s
		}
	}
	return Source{} // no lock has that
}

// Sources are the modules that programs come from, tailscale's first.
func (in Inputs) Sources() []Source {
	return append([]Source{{TailscaleModule, Module{in.Tailscale.Version, in.Tailscale.Sum}}}, in.Modules...)
}

// Own reports whether a module is this project's.
func (s Source) Own() bool { return s.Path == derper.Module }

// Mod is the module's path and version.
func (s Source) Mod() module.Version { return module.Version{Path: s.Path, Version: s.Module.Version} }

// Image are the inputs that decide what the first variant's image is, for one platform or
// for all: without the names of its tags, its budget, and the features from which build
// tags were made.
func (in Inputs) Image(platforms ...Platform) Inputs {
	if of, err := in.Of(in.Variant().Name); err == nil {
		in = of
	}
	in.Variants = slices.Clone(in.Variants)
	for i := range in.Variants {
		in.Variants[i].Suffix, in.Variants[i].Budget = "", 0
	}
	in.Programs = slices.Clone(in.Programs)
	for i := range in.Programs {
		in.Programs[i].Features = nil
	}
	if len(platforms) > 0 {
		in.Platforms = platforms
	}
	return in
}

// taken are the names of layers that hold no program of the lock, see package plan.
var taken = []string{"base", "entrypoint", "files"}

var (
	feature  = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	buildTag = regexp.MustCompile(`^[A-Za-z0-9_.]+$`)
	octal    = regexp.MustCompile(`^0[01]?[0-7]{3}$`)
	user     = regexp.MustCompile(`^[0-9]+(:[0-9]+)?$`)
	suffix   = regexp.MustCompile(`^(-[a-z][a-z0-9]*)?$`)
)

func (in Inputs) checkPrograms(want wanting) {
	want(len(in.Programs) > 0, "inputs.programs", "is empty")
	for i, p := range in.Programs {
		key := fmt.Sprintf("inputs.programs[%d]", i)
		from := in.SourceOf(p)
		want(p.Package != ToolsPackage || len(p.Features)+len(p.Tags) == 0, key+".package", "the tools of this project have neither features nor build tags")
		want(from.Path != "" && module.CheckImportPath(p.Package) == nil && fileName.MatchString(p.Name()),
			key+".package", "%q is no package of %s, nor of one of inputs.modules", p.Package, TailscaleModule)
		want(p.In == "" || fileName.MatchString(p.In), key+".layer", "%q is no name", p.In)
		want(!slices.Contains(taken, p.Layer()) && !slices.Contains(taken, p.Name()), key+".package", "%s is the name of another layer", p.Layer())
		for _, q := range in.Programs[:i] {
			want(q.Layer() != p.Layer() || q.In == p.In && in.SourceOf(q) == from && slices.Equal(q.Tags, p.Tags),
				key+".layer", "%s has %s, too, which is of another module or has other build tags", p.Layer(), q.Name())
		}
		want(!slices.ContainsFunc(in.Programs[:i], func(q Program) bool { return q.Name() >= p.Name() }),
			key+".package", "%s is out of order: programs are sorted by their names, each once", p.Name())
		for _, f := range p.Features {
			want(feature.MatchString(f), key+".features", "%q is no feature", f)
			want(!slices.Contains(p.Tags, "ts_omit_"+f), key+".features", "%s is among them, and buildTags leave it out: build update sets buildTags", f)
		}
		want(p.Features == nil || len(p.Features) > 0, key+".features", "is empty: leave it out")
		want(slices.IsSorted(p.Features) && len(slices.Compact(slices.Clone(p.Features))) == len(p.Features), key+".features", "are not sorted, each once")
		for _, tag := range p.Tags {
			want(buildTag.MatchString(tag), key+".buildTags", "%q is no build tag", tag)
		}
		want(p.Tags == nil || len(p.Tags) > 0, key+".buildTags", "is empty: leave it out")
		want(slices.IsSorted(p.Tags) && len(slices.Compact(slices.Clone(p.Tags))) == len(p.Tags), key+".buildTags", "are not sorted, each once")
	}
}

func (in Inputs) checkModules(want wanting) {
	for i, m := range in.Modules {
		key := fmt.Sprintf("inputs.modules[%d]", i)
		want(module.Check(m.Path, m.Module.Version) == nil, key, "%s@%s is no module", m.Path, m.Module.Version)
		want(!m.Own() && m.Path != TailscaleModule && !strings.HasPrefix(m.Path, TailscaleModule+"/") && m.Path != ToolchainModule && m.Path != RootsModule, key+".path", "%s has a place of its own among the inputs", m.Path)
		want(h1.MatchString(m.Sum), key+".sum", "%q is no h1: sum", m.Sum)
		want(!slices.ContainsFunc(in.Modules[:i], func(o Source) bool { return o.Path >= m.Path }), key+".path", "%s is out of order: modules are sorted by their paths, each once", m.Path)
	}
}

func (in Inputs) checkVariants(want wanting) {
	want(len(in.Variants) > 0, "inputs.variants", "is empty")
	for i, v := range in.Variants {
		key := fmt.Sprintf("inputs.variants[%d]", i)
		others := in.Variants[:i]
		want(fileName.MatchString(v.Name), key+".name", "%q is no name", v.Name)
		want(!slices.ContainsFunc(others, func(o Variant) bool { return o.Name == v.Name }), key+".name", "duplicate %s", v.Name)
		want(suffix.MatchString(v.Suffix), key+".suffix", "%q is no end of a tag such as -debug", v.Suffix)
		want(!slices.ContainsFunc(others, func(o Variant) bool { return o.Suffix == v.Suffix }), key+".suffix", "duplicate %q", v.Suffix)
		want(!revision.MatchString(v.Suffix), key+".suffix", "%q reads as a revision", v.Suffix)
		want(v.Suffix != "-latest" && v.Suffix != "-"+string(Unstable), key+".suffix", "%q would be a tag of the variant without a suffix", v.Suffix)
		want(slices.Contains(v.Programs, "derper"), key+".programs", "there is no derper among them")
		for n, name := range v.Programs {
			want(slices.ContainsFunc(in.Programs, func(p Program) bool { return p.Name() == name }), key+".programs", "%q is not among inputs.programs", name)
			want(!slices.Contains(v.Programs[:n], name), key+".programs", "duplicate %s", name)
		}
		want(v.User == "" || user.MatchString(v.User), key+".user", "%q is neither a uid nor uid:gid", v.User)
		want(v.Files == nil || len(v.Files) > 0, key+".files", "is empty: leave it out")
		want(v.Budget >= 0, key+".budgetBytes", "is below 0")
		for n, f := range v.Files {
			at := fmt.Sprintf("%s.files[%d]", key, n)
			f.check(at, want)
			want(!slices.ContainsFunc(append([]string{"entrypoint"}, v.Programs...), f.hides),
				at+".path", "%s hides a program of the image", f.Path)
			want(!slices.ContainsFunc(v.Files[:n], func(o Entry) bool { return strings.TrimSuffix(o.Path, "/") == strings.TrimSuffix(f.Path, "/") }),
				at+".path", "duplicate %s", f.Path)
			want(!slices.ContainsFunc(v.Files, func(o Entry) bool { return strings.HasPrefix(f.Path, o.Path+"/") }),
				at+".path", "%s is below a file", f.Path)
		}
	}
}

// hides reports whether an entry would hide a program, or a folder above it.
func (e Entry) hides(program string) bool {
	if program != "entrypoint" {
		program = "usr/local/bin/" + program
	}
	name, folder := strings.CutSuffix(e.Path, "/")
	return name == program || strings.HasPrefix(name, program+"/") || !folder && strings.HasPrefix(program, name+"/")
}

// linkMode is the mode of a symbolic link, which has none that counts.
const linkMode = "0777"

// climbs is how many folders up a clean path begins.
func climbs(p string) int { return strings.Count(p+"/", "../") }

func (e Entry) check(key string, want wanting) {
	name, folder := strings.CutSuffix(e.Path, "/")
	want(fs.ValidPath(name) && name != "." && !strings.ContainsFunc(name, unicode.IsControl) && !strings.Contains("/"+name, "/.wh."), key+".path", "expected a path from the root of the image, without a slash in front, got %q", e.Path)
	want(e.Owner >= 0, key+".owner", "is below 0")
	want(octal.MatchString(e.Mode), key+".mode", "%q is no mode in octal such as 0755", e.Mode)
	want(!strings.HasPrefix(e.Text, "\x7fELF"), key+".text", "is a program")
	want(e.Text == "" || !folder, key+".text", "cannot be combined with a folder")
	want(e.Link == "" || !folder && e.Text == "" && e.Mode == linkMode, key+".link", "cannot be combined with a folder, a text, or a mode other than %s", linkMode)
	inside := path.Join("/", path.Dir(name), e.Link)
	want(e.Link == "" || !path.IsAbs(e.Link) && path.Clean(e.Link) == e.Link && fs.ValidPath(inside[1:]) && !strings.ContainsFunc(e.Link, unicode.IsControl) && climbs(e.Link) <= strings.Count(name, "/"),
		key+".link", "expected a path from the link's folder to a file of the image, got %q", e.Link)
}
