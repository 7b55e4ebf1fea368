package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A listing is a call of ls.
type listing struct {
	long, numeric, human, inode, all, almost, folders, recursive, byTime, bySize, reverse, kind *bool

	out    *bufio.Writer
	blocks bool // some have been printed
	failed error
}

// A listed file has a name, which is printed, and a path.
type listed struct {
	name, path string
	info       fs.FileInfo
	stat       *syscall.Stat_t
}

func ls(args []string) error {
	flags := newFlags()
	l := &listing{
		out:       bufio.NewWriter(os.Stdout),
		long:      flags.BoolP("long", "l", false, "modes, owners, sizes and times, too"),
		numeric:   flags.BoolP("numeric-uid-gid", "n", false, "as -l, with numbers of owners"),
		human:     flags.BoolP("human-readable", "h", false, "with -l: sizes in units that are easy to read"),
		inode:     flags.BoolP("inode", "i", false, "the number of the inode, too"),
		all:       flags.BoolP("all", "a", false, "names that begin with a dot, too"),
		almost:    flags.BoolP("almost-all", "A", false, "as -a, without . and .."),
		folders:   flags.BoolP("directory", "d", false, "folders, not what is in them"),
		recursive: flags.BoolP("recursive", "R", false, "what is in folders below, too"),
		byTime:    flags.BoolP("time", "t", false, "the newest first"),
		bySize:    flags.BoolP("size", "S", false, "the largest first"),
		reverse:   flags.BoolP("reverse", "r", false, "in the reverse order"),
		kind:      flags.BoolP("classify", "F", false, "mark folders /, programs *, links @, sockets = and pipes |"),
	}
	flags.BoolP("one", "1", false, "one name a line, as always")
	names, err := parse(flags, args, "[-1AadFhilnRrSt] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	*l.long = *l.long || *l.numeric
	var files, folders []listed
	if len(names) == 0 {
		names = []string{"."}
	}
	for _, name := range names {
		f := l.file(name, name)
		if f.info == nil {
			continue
		}
		// A link that is named stands for its folder, except where the link itself is asked for.
		if to, err := os.Stat(name); !*l.folders && (f.info.IsDir() || err == nil && to.IsDir() && (!*l.long && !*l.kind || strings.HasSuffix(name, "/"))) {
			folders = append(folders, f)
		} else {
			files = append(files, f)
		}
	}
	if l.sort(files); len(files) > 0 {
		l.print(files)
	}
	l.sort(folders)
	for _, f := range folders {
		l.folder(f.path, len(names) > 1 || *l.recursive)
	}
	return cmp.Or(l.out.Flush(), l.failed)
}

// fail says what is wrong.
func (l *listing) fail(err error) {
	l.out.Flush() //nolint:errcheck // the last one says it
	fmt.Fprintln(os.Stderr, "ls:", err)
	l.failed = status(1)
}

// file is a file to be listed; without info, if there is none.
func (l *listing) file(name, path string) listed {
	info, err := os.Lstat(path)
	if err != nil {
		l.fail(err)
		return listed{}
	}
	return listed{name, path, info, info.Sys().(*syscall.Stat_t)}
}

func (l *listing) sort(files []listed) {
	slices.SortFunc(files, func(a, b listed) int {
		by := strings.Compare(a.name, b.name)
		switch {
		case *l.byTime:
			by = cmp.Or(b.info.ModTime().Compare(a.info.ModTime()), by)
		case *l.bySize:
			by = cmp.Or(cmp.Compare(b.info.Size(), a.info.Size()), by)
		}
		if *l.reverse {
			return -by
		}
		return by
	})
}

// folder lists what is in a folder.
func (l *listing) folder(path string, title bool) {
	entries, err := os.ReadDir(path)
	if err != nil {
		l.fail(err)
	}
	if l.blocks {
		fmt.Fprintln(l.out)
	}
	if l.blocks = true; title {
		fmt.Fprintf(l.out, "%s:\n", path)
	}
	var files []listed
	names := []string{}
	if *l.all {
		names = append(names, ".", "..")
	}
	for _, entry := range entries {
		if *l.all || *l.almost || !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	for _, name := range names {
		if f := l.file(name, below(path, name)); f.info != nil {
			files = append(files, f)
		}
	}
	l.sort(files)
	if *l.long {
		blocks := int64(0)
		for _, f := range files {
			blocks += f.stat.Blocks
		}
		fmt.Fprintln(l.out, "total", l.size(blocks/2, 1024))
	}
	l.print(files)
	for _, f := range files {
		if *l.recursive && f.info.IsDir() && f.name != "." && f.name != ".." {
			l.folder(f.path, true)
		}
	}
}

// below is the path of a file in a folder, whose path stays as it was typed.
func below(folder, name string) string { return strings.TrimSuffix(folder, "/") + "/" + name }

// print prints files, a line each.
func (l *listing) print(files []listed) {
	l.blocks = true
	var rows [][]string
	width := map[int]int{}
	for _, f := range files {
		var row []string
		if *l.inode {
			row = append(row, strconv.FormatUint(f.stat.Ino, 10))
		}
		if *l.long {
			size := l.size(f.info.Size(), 1)
			if f.info.Mode()&fs.ModeDevice != 0 {
				size = fmt.Sprintf("%d, %d", unix.Major(uint64(f.stat.Rdev)), unix.Minor(uint64(f.stat.Rdev)))
			}
			layout := "Jan _2 15:04"
			if age := time.Since(f.info.ModTime()); age < 0 || age > 183*24*time.Hour {
				layout = "Jan _2  2006"
			}
			row = append(row, modeText(f.info.Mode()), strconv.FormatUint(uint64(f.stat.Nlink), 10),
				l.owner(f.stat.Uid, userName), l.owner(f.stat.Gid, groupName), size, f.info.ModTime().Format(layout))
		}
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
		rows = append(rows, append(row, l.name(f)))
	}
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			if w := width[i]; *l.long && (len(row)-i == 5 || len(row)-i == 4) { // owners
				fmt.Fprintf(l.out, "%-*s ", w, cell)
			} else {
				fmt.Fprintf(l.out, "%*s ", w, cell)
			}
		}
		fmt.Fprintln(l.out, row[len(row)-1])
	}
}

// size is a size of n units, as the flags ask for.
func (l *listing) size(n, unit int64) string {
	if *l.human {
		return units(uint64(n * unit))
	}
	return strconv.FormatInt(n, 10)
}

// name is a file's name, with what -F and -l add to it. What a terminal would obey is not
// written there.
func (l *listing) name(f listed) string {
	name, mode := f.name, f.info.Mode()
	link, _ := os.Readlink(f.path)
	switch {
	case *l.long && link != "":
		name += " -> " + link
	case !*l.kind:
	case mode.IsDir():
		name += "/"
	case mode&fs.ModeSymlink != 0:
		name += "@"
	case mode&fs.ModeSocket != 0:
		name += "="
	case mode&fs.ModeNamedPipe != 0:
		name += "|"
	case mode.IsRegular() && mode&0o111 != 0:
		name += "*"
	}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		name = strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return '?'
		}, name)
	}
	return name
}

// owner is the name of an owner, or the number.
func (l *listing) owner(id uint32, name func(id string) string) string {
	number := strconv.FormatUint(uint64(id), 10)
	if *l.numeric {
		return number
	}
	return name(number)
}

// userName is the name of a user, or the number if there is none.
func userName(id string) string {
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// groupName is the name of a group, or the number if there is none.
func groupName(id string) string {
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// modeText writes a mode as ls does, which is not how Go does.
func modeText(mode fs.FileMode) string {
	text := []byte("-rwxrwxrwx")
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			text[1+i] = '-'
		}
	}
	for _, kind := range []struct {
		mode   fs.FileMode
		letter byte
	}{{fs.ModeDir, 'd'}, {fs.ModeSymlink, 'l'}, {fs.ModeSocket, 's'}, {fs.ModeNamedPipe, 'p'}, {fs.ModeDevice, 'b'}, {fs.ModeCharDevice, 'c'}} {
		if mode&kind.mode != 0 {
			text[0] = kind.letter
		}
	}
	for _, special := range []struct {
		mode   fs.FileMode
		at     int
		letter byte
	}{{fs.ModeSetuid, 3, 's'}, {fs.ModeSetgid, 6, 's'}, {fs.ModeSticky, 9, 't'}} {
		if mode&special.mode == 0 {
			continue
		}
		if text[special.at] == '-' {
			special.letter -= 'a' - 'A'
		}
		text[special.at] = special.letter
	}
	return string(text)
}
