package main

import (
	"bufio"
	"bytes"
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
)

// A search is a call of grep.
type search struct {
	invert, number, count, quiet, only, list, without, text *bool

	max, before, after int
	re                 *regexp.Regexp
	names, word        bool // names are printed, whole words are searched
	out                *bufio.Writer
	found              bool
	groups             bool // lines with others around them have been printed
}

// grep ends with 0 if a line matches, 1 if none does, and 2 if something failed.
func grep(args []string) error {
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if n, err := strconv.ParseUint(strings.TrimPrefix(arg, "-"), 10, 31); err == nil && arg[0] == '-' {
			args[i] = fmt.Sprintf("-C%d", n)
		}
	}
	flags := newFlags()
	s := &search{
		out:     bufio.NewWriter(os.Stdout),
		invert:  flags.BoolP("invert-match", "v", false, "lines that do not match"),
		number:  flags.BoolP("line-number", "n", false, "the number of each line"),
		count:   flags.BoolP("count", "c", false, "how many lines there are"),
		quiet:   flags.BoolP("quiet", "q", false, "the exit code alone"),
		only:    flags.BoolP("only-matching", "o", false, "what matches, without the rest of the line"),
		list:    flags.BoolP("files-with-matches", "l", false, "names of files alone"),
		without: flags.BoolP("files-without-match", "L", false, "names of files where no line matches"),
		text:    flags.BoolP("text", "a", false, "print lines of files that are no texts"),
	}
	ignoreCase := flags.BoolP("ignore-case", "i", false, "upper and lower case are the same")
	word := flags.BoolP("word-regexp", "w", false, "whole words")
	whole := flags.BoolP("line-regexp", "x", false, "whole lines")
	fixed := flags.BoolP("fixed-strings", "F", false, "a text, no regular expression")
	extended := flags.BoolP("extended-regexp", "E", false, "a regular expression of Go; without it, a basic one of POSIX")
	flags.BoolVarP(extended, "perl-regexp", "P", false, "as -E")
	noName := flags.BoolP("no-filename", "h", false, "no names of files")
	withName := flags.BoolP("with-filename", "H", false, "names of files, even of one")
	noErrors := flags.BoolP("no-messages", "s", false, "do not say what cannot be read")
	recursive := flags.BoolP("recursive", "r", false, "all files below folders")
	follow := flags.BoolP("dereference-recursive", "R", false, "as -r, and where links lead")
	flags.IntVarP(&s.max, "max-count", "m", -1, "at most so many lines of each file")
	flags.IntVarP(&s.before, "before-context", "B", -1, "so many lines before each, too")
	flags.IntVarP(&s.after, "after-context", "A", -1, "so many lines after each, too")
	around := flags.IntP("context", "C", 0, "so many lines before and after each, too")
	patterns := flags.StringArrayP("regexp", "e", nil, "a pattern")
	rest, err := parse(flags, args, "[-EFPRHLachilnoqrsvwx] [-A|-B|-C LINES] [-m LINES] [-e PATTERN | PATTERN] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	if len(*patterns) == 0 {
		if len(rest) == 0 {
			return usageError{errors.New("no pattern")}
		}
		*patterns, rest = rest[:1], rest[1:]
	}
	var exprs []string
	for _, p := range strings.Split(strings.Join(*patterns, "\n"), "\n") {
		switch {
		case *fixed:
			p = regexp.QuoteMeta(p)
		case !*extended:
			p = basic(p)
		}
		if p = "(?:" + p + ")"; *whole {
			p = "^" + p + "$"
		}
		exprs = append(exprs, p)
	}
	expr := strings.Join(exprs, "|")
	if s.word = *word && !*whole; s.word { // \b would need a letter at the ends of the pattern
		expr = `(?:^|\W)(` + expr + `)(?:\W|$)`
	}
	if *ignoreCase {
		expr = "(?i)" + expr
	}
	if s.re, err = regexp.Compile(expr); err != nil {
		return usageError{err}
	}
	if s.before < 0 {
		s.before = *around
	}
	if s.after < 0 {
		s.after = *around
	}
	if *recursive || *follow {
		if rest = filesIn(rest, *follow, map[[2]uint64]bool{}); len(rest) == 0 {
			return status(1)
		}
	}
	if *noErrors {
		if os.Stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
			return err
		}
	}
	s.names = (len(rest) > 1 || *recursive || *follow || *withName) && !*noName
	err = each(rest, s.file)
	switch flushed := s.out.Flush(); {
	case errors.Is(err, errStop), err == nil && flushed == nil && s.found:
		return nil
	case flushed != nil:
		return flushed
	case err != nil:
		return status(2)
	}
	return status(1)
}

// file searches a file.
func (s *search) file(name string, in *os.File) error {
	if name == "-" {
		name = "(standard input)"
	}
	var before []string // lines that have not been printed
	n, hits, left, printed := 0, 0, 0, 0
	binary := false
	write := func(n int, text []byte, mark string) {
		if s.names {
			fmt.Fprint(s.out, name, mark)
		}
		if *s.number {
			fmt.Fprint(s.out, n, mark)
		}
		fmt.Fprintf(s.out, "%s\n", text)
		printed = n
	}
	short := *s.count || *s.list || *s.without || *s.quiet
	err := lines(in, func(line []byte) error {
		n++
		binary = binary || !*s.text && bytes.IndexByte(line, 0) >= 0
		if s.max >= 0 && hits >= s.max || s.re.Match(line) == *s.invert {
			switch {
			case short:
			case left > 0:
				write(n, line, "-")
				left--
			case s.before > 0:
				if before = append(before, string(line)); len(before) > s.before {
					before = before[1:]
				}
			}
			if s.max >= 0 && hits >= s.max && left == 0 {
				return errStop
			}
			return nil
		}
		hits++
		switch {
		case *s.quiet, *s.list, *s.without:
			return errStop
		case *s.count:
			return nil
		case binary:
			fmt.Fprintf(s.out, "Binary file %s matches\n", name)
			return errStop
		}
		if *s.only {
			if !*s.invert {
				for _, text := range s.matches(line) {
					write(n, text, ":")
				}
			}
			return s.out.Flush()
		}
		if (s.before > 0 || s.after > 0) && s.groups && (printed == 0 || n-len(before) > printed+1) {
			fmt.Fprintln(s.out, "--")
		}
		s.groups = true
		for i, text := range before {
			write(n-len(before)+i, []byte(text), "-")
		}
		before, left = nil, s.after
		write(n, line, ":")
		if s.max >= 0 && hits >= s.max && left == 0 {
			return errStop
		}
		return s.out.Flush()
	})
	stopped := errors.Is(err, errStop)
	if stopped {
		err = nil
	}
	if *s.count {
		if s.names {
			fmt.Fprint(s.out, name, ":")
		}
		fmt.Fprintln(s.out, hits)
	}
	if *s.list && hits > 0 || *s.without && hits == 0 && err == nil {
		fmt.Fprintln(s.out, name)
	}
	if s.found = s.found || hits > 0; *s.quiet && hits > 0 {
		return errStop
	}
	return err
}

// matches are the parts of a line that match.
func (s *search) matches(line []byte) (texts [][]byte) {
	if !s.word {
		return slices.DeleteFunc(s.re.FindAll(line, -1), func(text []byte) bool { return len(text) == 0 })
	}
	for at := s.re.FindSubmatchIndex(line); at != nil && at[3] > at[2]; at = s.re.FindSubmatchIndex(line) {
		texts, line = append(texts, line[at[2]:at[3]]), line[at[3]:] // what is between two words belongs to both
	}
	return texts
}

// basic writes a basic regular expression of POSIX, with what GNU's grep has besides, as one
// of Go: there, ( ) { } | + ? are letters, and with a backslash in front what they are in Go.
func basic(expr string) string {
	var out strings.Builder
	start := true // of the expression, or of a part of it
	for i := 0; i < len(expr); i++ {
		c, began := expr[i], start
		start = false
		switch {
		case c == '\\' && i+1 < len(expr):
			i++
			switch c := expr[i]; {
			case strings.IndexByte("(){}|+?", c) >= 0:
				start = c == '(' || c == '|'
				out.WriteByte(c)
			case c == '<' || c == '>':
				out.WriteString(`\b`)
			default:
				out.WriteString(`\` + string(c))
			}
		case c == '[':
			end := i + 1 // a ] that comes first is one of the letters
			if end < len(expr) && expr[end] == '^' {
				end++
			}
			if end < len(expr) && expr[end] == ']' {
				end++
			}
			for end < len(expr) && expr[end] != ']' {
				if class := strings.Index(expr[end:], ":]"); strings.HasPrefix(expr[end:], "[:") && class > 0 {
					end += class + 1
				}
				end++
			}
			out.WriteString(strings.ReplaceAll(expr[i:min(end+1, len(expr))], `\`, `\\`))
			i = end
		case strings.IndexByte("(){}|+?", c) >= 0, c == '*' && began, c == '^' && !began,
			c == '$' && i+1 < len(expr) && !strings.HasPrefix(expr[i+1:], `\)`) && !strings.HasPrefix(expr[i+1:], `\|`):
			out.WriteString(`\` + string(c))
		default:
			start = c == '^' // a * is a letter there, too
			out.WriteByte(c)
		}
	}
	return out.String()
}

// filesIn are the files in folders, those that links lead to if that is wanted. No folder is
// searched twice, since links may lead in a circle.
func filesIn(names []string, follow bool, seen map[[2]uint64]bool) (files []string) {
	if len(names) == 0 {
		names = []string{"."}
	}
	for _, name := range names {
		filepath.WalkDir(name, func(file string, d fs.DirEntry, err error) error { //nolint:errcheck // an error is one when the file is opened
			info, statErr := os.Stat(file)
			switch {
			case err != nil || d.Type().IsRegular() || file == name && !d.IsDir() && (statErr != nil || !info.IsDir()):
				files = append(files, file)
			case statErr != nil:
			case follow && d.Type()&fs.ModeSymlink != 0 && info.Mode().IsRegular():
				files = append(files, file)
			case info.IsDir() && follow:
				at := info.Sys().(*syscall.Stat_t)
				if key := [2]uint64{uint64(at.Dev), at.Ino}; !d.IsDir() {
					files = append(files, filesIn([]string{file + "/"}, true, seen)...)
				} else if seen[key] {
					return fs.SkipDir
				} else {
					seen[key] = true
				}
			case d.Type()&fs.ModeSymlink != 0 && file == name: // a link that was named
				files = append(files, filesIn([]string{file + "/"}, false, seen)...)
			}
			return nil
		})
	}
	return files
}
