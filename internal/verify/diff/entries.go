package diff

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// A FileDiff compares an entry of two layers.
type FileDiff struct {
	Name string
	// Want and Got are the two entries; one is nil when the entry was added or is
	// missing.
	Want, Got *Entry
	// Nth counts entries of the same name, from 0.
	Nth int
	// Changes says what of it differs, apart from its content: one line each.
	Changes []string
}

// Content reports whether both are there, of one type, and the content differs.
func (d *FileDiff) Content() bool {
	return d.Want != nil && d.Got != nil && d.Want.Header.Typeflag == d.Got.Header.Typeflag && d.Want.Digest != d.Got.Digest
}

// Same reports whether nothing differs.
func (d *FileDiff) Same() bool {
	return d.Want != nil && d.Got != nil && len(d.Changes) == 0 && !d.Content()
}

// Files compares the entries of two layers: first those of want, in its order, then
// those that got has beyond them.
func Files(want, got []Entry) []FileDiff {
	type key struct {
		name string
		nth  int
	}
	var list []FileDiff
	at := map[key]int{} // in list
	count := map[string]int{}
	for i, e := range want {
		k := key{e.Name, count[e.Name]}
		count[e.Name]++
		at[k] = len(list)
		list = append(list, FileDiff{Name: k.name, Nth: k.nth, Want: &want[i]})
	}
	clear(count)
	for i, e := range got {
		k := key{e.Name, count[e.Name]}
		count[e.Name]++
		if n, ok := at[k]; ok {
			list[n].Got, list[n].Changes = &got[i], changes(list[n].Want, &got[i])
		} else {
			list = append(list, FileDiff{Name: k.name, Nth: k.nth, Got: &got[i]})
		}
	}
	return list
}

// Order says where the order of the entries that both layers have begins to
// differ, "" for nowhere.
func Order(want, got []Entry) string {
	names := func(entries, other []Entry) []string {
		have := map[string]bool{}
		for _, e := range other {
			have[e.Name] = true
		}
		var list []string
		for _, e := range entries {
			if have[e.Name] {
				list = append(list, e.Name)
			}
		}
		return list
	}
	w, g := names(want, got), names(got, want)
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("order of entries: image %s where the rebuilt has %s", Printable(g[i]), Printable(w[i]))
		}
	}
	return ""
}

// changes lists the fields of two headers that differ.
func changes(want, got *Entry) []string {
	w, g := &want.Header, &got.Header
	var list []string
	differ := func(what, image, rebuilt string) {
		if image != rebuilt {
			list = append(list, fmt.Sprintf("%s: image %s, rebuilt %s", what, short(image), short(rebuilt)))
		}
	}
	differ("type", typeName(g.Typeflag), typeName(w.Typeflag))
	differ("mode", mode(g.Mode), mode(w.Mode))
	differ("owner", fmt.Sprintf("%d:%d", g.Uid, g.Gid), fmt.Sprintf("%d:%d", w.Uid, w.Gid))
	differ("owner's names", orNone(g.Uname+":"+g.Gname), orNone(w.Uname+":"+w.Gname))
	differ("mtime", stamp(g.ModTime), stamp(w.ModTime))
	differ("access time", stamp(g.AccessTime), stamp(w.AccessTime))
	differ("change time", stamp(g.ChangeTime), stamp(w.ChangeTime))
	differ("link to", orNone(g.Linkname), orNone(w.Linkname))
	differ("device", fmt.Sprintf("%d,%d", g.Devmajor, g.Devminor), fmt.Sprintf("%d,%d", w.Devmajor, w.Devminor))
	differ("size", fmt.Sprintf("%d bytes", g.Size), fmt.Sprintf("%d bytes", w.Size))
	differ("tar dialect", g.Format.String(), w.Format.String())
	for _, name := range slices.Sorted(maps.Keys(union(w.PAXRecords, g.PAXRecords))) {
		what := "PAX record " + name
		if x, ok := strings.CutPrefix(name, "SCHILY.xattr."); ok {
			what = "extended attribute " + x
		}
		differ(what, value(g.PAXRecords, name), value(w.PAXRecords, name))
	}
	return list
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	return all
}

func value(m map[string]string, name string) string {
	if v, ok := m[name]; ok {
		return fmt.Sprintf("%q", v)
	}
	return "none"
}

func orNone(s string) string {
	if strings.Trim(s, ":") == "" {
		return "none"
	}
	return s
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// mode is a mode in octal, with what gives a program somebody else's rights named.
func mode(m int64) string {
	s := fmt.Sprintf("%04o", m)
	if m&0o4000 != 0 {
		s += " (setuid)"
	}
	if m&0o2000 != 0 {
		s += " (setgid)"
	}
	return s
}

var typeNames = map[byte]string{
	tar.TypeReg: "file", tar.TypeDir: "folder", tar.TypeSymlink: "symbolic link", tar.TypeLink: "hard link",
	tar.TypeChar: "device", tar.TypeBlock: "device", tar.TypeFifo: "named pipe",
}

func typeName(t byte) string { return cmp.Or(typeNames[t], fmt.Sprintf("%q", t)) }

// Describe is an entry in a few words.
func (e *Entry) Describe() string {
	what := typeName(e.Header.Typeflag)
	if e.Program() {
		what = "program for " + e.Machine
	}
	s := fmt.Sprintf("%s, mode %s, owner %d:%d", what, mode(e.Header.Mode), e.Header.Uid, e.Header.Gid)
	if e.Header.Typeflag == tar.TypeReg {
		s += fmt.Sprintf(", %d bytes", e.Header.Size)
	}
	if e.Header.Linkname != "" {
		s += " → " + Printable(e.Header.Linkname)
	}
	if fs.FileMode(e.Header.Mode).Perm()&0o002 != 0 && e.Header.Typeflag == tar.TypeReg {
		s += ", writable for all"
	}
	return s
}
