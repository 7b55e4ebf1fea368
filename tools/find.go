package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/pattern"
)

const findUsage = `usage: find [FOLDER]… [EXPRESSION]
  -name P, -iname P, -path P, -ipath P, -type bcdflps, -size [+-]N[ckMG], -empty, -perm [-/]OCTAL,
  -mtime [+-]DAYS, -mmin [+-]MINUTES, -newer FILE, ! X, X -a Y, X -o Y, ( X ),
  -print, -print0, -exec COMMAND {} ; or +, -delete, -prune, -quit, -maxdepth N, -mindepth N, -depth, -xdev
`

// A condition is part of an expression, which a file meets or not. Actions are conditions, too.
type condition func(f *found) bool

type found struct {
	path, name string
	info       fs.FileInfo
	pruned     bool
}

// A finder is a call of find.
type finder struct {
	words []string // of the expression, that have not been read
	err   error    // the first in the expression

	match              condition
	min, max           int
	inside, stay, acts bool // -depth, -xdev, an action is there

	out    *bufio.Writer
	atEnd  []func() // of -exec … +
	quit   bool
	failed error
}

func find(args []string) error {
	if slices.Contains(args, "--help") {
		fmt.Print(findUsage)
		return nil
	}
	n := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-" || arg == "!" || arg == "(" })
	if n < 0 {
		n = len(args)
	}
	f := &finder{words: args[n:], max: 1 << 30, out: bufio.NewWriter(os.Stdout)}
	roots := args[:n]
	if len(roots) == 0 {
		roots = []string{"."}
	}
	f.match = func(*found) bool { return true }
	if len(f.words) > 0 {
		f.match = f.or()
	}
	if f.err == nil && len(f.words) > 0 {
		f.err = fmt.Errorf("unexpected %s", f.words[0])
	}
	if f.err != nil {
		return usageError{f.err}
	}
	for _, root := range roots {
		info, err := os.Lstat(root)
		if err != nil {
			f.fail(err)
			continue
		}
		name := filepath.Base(root)
		f.walk(&found{path: root, name: name, info: info}, 0, device(info))
	}
	for _, run := range f.atEnd {
		run()
	}
	return cmp.Or(f.out.Flush(), f.failed)
}

// fail says what is wrong.
func (f *finder) fail(err error) {
	f.out.Flush() //nolint:errcheck // the last one says it
	fmt.Fprintln(os.Stderr, "find:", err)
	f.failed = status(1)
}

// vanished reports whether a file is gone. Of a process that ended, /proc says so in other ways.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL)
}

func device(info fs.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Dev) }

func (f *finder) walk(file *found, depth int, on uint64) {
	meet := func() {
		if depth < f.min || f.quit {
			return
		}
		if f.match(file) && !f.acts {
			fmt.Fprintln(f.out, file.path)
		}
	}
	if !f.inside {
		meet()
	}
	if file.info.IsDir() && !file.pruned && !f.quit && depth < f.max && (!f.stay || device(file.info) == on) {
		entries, err := os.ReadDir(file.path)
		if err != nil && !(depth > 0 && vanished(err)) {
			f.fail(err)
		}
		for _, entry := range entries {
			path := below(file.path, entry.Name())
			info, err := entry.Info()
			switch {
			case err == nil:
				f.walk(&found{path: path, name: entry.Name(), info: info}, depth+1, on)
			case !vanished(err):
				f.fail(err)
			}
		}
	}
	if f.inside {
		meet()
	}
}

// next is the next word, which has to be there.
func (f *finder) next(what string) (word string) {
	if len(f.words) == 0 {
		f.err = cmp.Or(f.err, fmt.Errorf("%s is missing", what))
		return ""
	}
	word, f.words = f.words[0], f.words[1:]
	return word
}

// skip skips one of some words, if it is next.
func (f *finder) skip(words ...string) bool {
	if len(f.words) == 0 || !slices.Contains(words, f.words[0]) {
		return false
	}
	f.words = f.words[1:]
	return true
}

func (f *finder) or() condition {
	a := f.and()
	for f.skip("-o", "-or") {
		left, right := a, f.and()
		a = func(file *found) bool { return left(file) || right(file) }
	}
	return a
}

func (f *finder) and() condition {
	a := f.not()
	for f.err == nil && len(f.words) > 0 && !slices.Contains([]string{"-o", "-or", ")"}, f.words[0]) {
		f.skip("-a", "-and")
		left, right := a, f.not()
		a = func(file *found) bool { return left(file) && right(file) }
	}
	return a
}

func (f *finder) not() condition {
	switch {
	case f.skip("!", "-not"):
		not := f.not()
		return func(file *found) bool { return !not(file) }
	case f.skip("("):
		in := f.or()
		if !f.skip(")") {
			f.err = cmp.Or(f.err, errors.New(") is missing"))
		}
		return in
	}
	return f.primary()
}

// primary is one condition, with what it is about.
func (f *finder) primary() condition {
	always := func(*found) bool { return true }
	name := f.next("a condition")
	switch name {
	case "-print", "-print0":
		f.acts = true
		end := map[string]string{"-print": "\n", "-print0": "\x00"}[name]
		return func(file *found) bool { fmt.Fprint(f.out, file.path, end); return true }
	case "-delete":
		f.acts, f.inside = true, true
		return f.remove
	case "-exec":
		f.acts = true
		return f.exec()
	case "-depth":
		f.inside = true
		return always
	case "-xdev", "-mount":
		f.stay = true
		return always
	case "-true":
		return always
	case "-false":
		return func(*found) bool { return false }
	case "-prune":
		return func(file *found) bool { file.pruned = true; return true }
	case "-quit":
		f.acts = true
		return func(*found) bool { f.quit = true; return true }
	case "-empty":
		return func(file *found) bool {
			if entries, err := os.ReadDir(file.path); file.info.IsDir() {
				return err == nil && len(entries) == 0
			}
			return file.info.Mode().IsRegular() && file.info.Size() == 0
		}
	}
	if !slices.Contains([]string{"-name", "-iname", "-path", "-ipath", "-wholename", "-type", "-maxdepth", "-mindepth", "-size", "-mtime", "-mmin", "-newer", "-perm"}, name) {
		f.err = cmp.Or(f.err, fmt.Errorf("%s is not known", name))
		return always
	}
	word := f.next("what " + name + " is about")
	c, err := f.about(name, word)
	if err != nil {
		f.err = cmp.Or(f.err, fmt.Errorf("%s %s: %w", name, word, err))
	}
	return c
}

var errArgument = errors.New("invalid argument")

// about is a condition that has an argument.
func (f *finder) about(name, word string) (condition, error) {
	always := func(*found) bool { return true }
	sign := strings.TrimSuffix(word, strings.TrimLeft(word, "+-"))
	n, err := strconv.ParseInt(strings.TrimRight(word[len(sign):], "cwbkMG"), 10, 64)
	switch name {
	case "-maxdepth":
		f.max = int(n)
		return always, cmp.Or(err, wrong(sign != ""))
	case "-mindepth":
		f.min = int(n)
		return always, cmp.Or(err, wrong(sign != ""))
	case "-type":
		return func(file *found) bool {
			kind := modeText(file.info.Mode())[:1]
			return strings.Contains(word, strings.Replace(kind, "-", "f", 1))
		}, wrong(strings.Trim(word, "bcdflps,") != "" || word == "")
	case "-size":
		unit := int64(512)
		for letter, of := range map[string]int64{"c": 1, "w": 2, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
			if strings.HasSuffix(word, letter) {
				unit = of
			}
		}
		return func(file *found) bool { return compare(sign, (file.info.Size()+unit-1)/unit, n) }, err
	case "-mtime":
		now := time.Now()
		return func(file *found) bool { return compare(sign, int64(now.Sub(file.info.ModTime())/(24*time.Hour)), n) }, err
	case "-mmin":
		now := time.Now()
		return func(file *found) bool {
			age := int64(now.Sub(file.info.ModTime()) / time.Second)
			if sign == "" {
				return (age+59)/60 == n
			}
			return compare(sign, age, n*60)
		}, err
	case "-newer":
		info, err := os.Stat(word)
		return func(file *found) bool { return file.info.ModTime().After(info.ModTime()) }, err
	case "-perm":
		mode, err := strconv.ParseUint(strings.TrimLeft(word, "-/"), 8, 12)
		return func(file *found) bool {
			has := uint64(octal(file.info.Mode()))
			switch {
			case strings.HasPrefix(word, "-"):
				return has&mode == mode
			case strings.HasPrefix(word, "/"):
				return has&mode != 0 || mode == 0
			}
			return has == mode
		}, err
	}
	expr, err := pattern.Regexp(word, pattern.EntireString) // where * stands for slashes, too
	if strings.HasPrefix(name, "-i") {
		expr = "(?i)" + expr
	}
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(expr)
	return func(file *found) bool {
		if strings.HasSuffix(name, "name") && name != "-wholename" {
			return re.MatchString(file.name)
		}
		return re.MatchString(file.path)
	}, err
}

// wrong is an error, if something is.
func wrong(is bool) error {
	if is {
		return errArgument
	}
	return nil
}

// octal are the bits of a mode as numbers write them.
func octal(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for special, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&special != 0 {
			bits |= bit
		}
	}
	return bits
}

// compare compares as +N and -N ask for.
func compare(sign string, got, want int64) bool {
	switch sign {
	case "+":
		return got > want
	case "-":
		return got < want
	}
	return got == want
}

func (f *finder) remove(file *found) bool {
	if file.path == "." || file.path == ".." {
		return true // it stays, as POSIX has it for rm
	}
	if err := os.Remove(file.path); err != nil && !vanished(err) {
		f.fail(err)
		return false
	}
	return true
}
