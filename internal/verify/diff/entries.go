package diff

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
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
// those that got has beyond them. It says where the order of the entries that both have
// begins to differ, "" for nowhere.
func Files(want, got []Entry) (list []FileDiff, order string) {
	at := map[string][]int{} // in list, by name
	for i, e := range want {
		list = append(list, FileDiff{Name: e.Name, Nth: len(at[e.Name]), Want: &want[i]})
		at[e.Name] = append(at[e.Name], i)
	}
	count := map[string]int{}
	var both []int // in list, in the order of got
	for i, e := range got {
		nth := count[e.Name]
		count[e.Name]++
		if nth >= len(at[e.Name]) {
			list = append(list, FileDiff{Name: e.Name, Nth: nth, Got: &got[i]})
			continue
		}
		n := at[e.Name][nth]
		list[n].Got = &got[i]
		for _, c := range changes(list[n].Want.facts(), got[i].facts()) {
			list[n].Changes = append(list[n].Changes, c.String())
		}
		both = append(both, n)
	}
	for i, n := range slices.Sorted(slices.Values(both)) {
		if both[i] != n {
			return list, fmt.Sprintf("order of entries: image %s where the rebuilt has %s", Printable(list[both[i]].Name), Printable(list[n].Name))
		}
	}
	return list, ""
}

// facts are what a header says, by what it says it of.
func (e *Entry) facts() map[string]string {
	h := &e.Header
	names := h.Uname + ":" + h.Gname
	if names == ":" {
		names = "none"
	}
	facts := map[string]string{
		"type":          typeName(h.Typeflag),
		"mode":          mode(h.Mode),
		"owner":         fmt.Sprintf("%d:%d", h.Uid, h.Gid),
		"owner's names": names,
		"mtime":         stamp(h.ModTime),
		"access time":   stamp(h.AccessTime),
		"change time":   stamp(h.ChangeTime),
		"link to":       h.Linkname,
		"device":        fmt.Sprintf("%d,%d", h.Devmajor, h.Devminor),
		"size":          fmt.Sprintf("%d bytes", h.Size),
		"tar dialect":   h.Format.String(),
	}
	for name, value := range h.PAXRecords {
		what := "PAX record " + name
		if x, ok := strings.CutPrefix(name, "SCHILY.xattr."); ok {
			what = "extended attribute " + x
		}
		facts[Printable(what)] = strconv.Quote(value)
	}
	return facts
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
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
