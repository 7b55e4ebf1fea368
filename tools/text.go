package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// each opens files in turn, or the standard input. What cannot be opened is said, and
// gives an error in the end.
func each(names []string, use func(name string, in *os.File) error) error {
	if len(names) == 0 {
		names = []string{"-"}
	}
	var failed error
	for _, name := range names {
		in, err := os.Stdin, error(nil)
		if name != "-" {
			in, err = os.Open(name)
		}
		if err == nil {
			err = use(name, in)
			in.Close()
		}
		if stop := errors.Is(err, errStop) || errors.Is(err, os.ErrClosed); stop {
			return err
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
			failed = status(1)
		}
	}
	return failed
}

// errStop ends each.
var errStop = errors.New("no more files")

// lines reads lines without their ends, however long.
func lines(in io.Reader, use func(line []byte) error) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			if err := use(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grep ends with 0 if a line matches, 1 if none does, and 2 if something failed.
func grep(args []string) error {
	flags := new(pflag.FlagSet)
	ignoreCase := flags.BoolP("ignore-case", "i", false, "upper and lower case are the same")
	invert := flags.BoolP("invert-match", "v", false, "lines that do not match")
	number := flags.BoolP("line-number", "n", false, "the number of each line")
	count := flags.BoolP("count", "c", false, "how many lines there are")
	quiet := flags.BoolP("quiet", "q", false, "the exit code alone")
	only := flags.BoolP("only-matching", "o", false, "what matches, without the rest of the line")
	list := flags.BoolP("files-with-matches", "l", false, "names of files alone")
	word := flags.BoolP("word-regexp", "w", false, "whole words")
	fixed := flags.BoolP("fixed-strings", "F", false, "a text, no regular expression")
	flags.BoolP("extended-regexp", "E", false, "a regular expression of Go, which all are")
	noName := flags.BoolP("no-filename", "h", false, "no names of files")
	recursive := flags.BoolP("recursive", "r", false, "all files below folders")
	patterns := flags.StringArrayP("regexp", "e", nil, "a pattern")
	rest, err := parse(flags, args, "[-FEchilnoqrvw] [-e PATTERN | PATTERN] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	if len(*patterns) == 0 {
		if len(rest) == 0 {
			return usageError{errors.New("no pattern")}
		}
		*patterns, rest = rest[:1], rest[1:]
	}
	for i, p := range *patterns {
		if *fixed {
			p = regexp.QuoteMeta(p)
		}
		if (*patterns)[i] = "(?:" + p + ")"; *word {
			(*patterns)[i] = `\b(?:` + p + `)\b`
		}
	}
	expr := strings.Join(*patterns, "|")
	if *ignoreCase {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return usageError{err}
	}
	if *recursive {
		if rest = below(rest); len(rest) == 0 {
			return status(1)
		}
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	found := false
	err = each(rest, func(name string, in *os.File) error {
		prefix := ""
		if (len(rest) > 1 || *recursive) && !*noName {
			prefix = name + ":"
		}
		n, hits := 0, 0
		err := lines(in, func(line []byte) error {
			if n++; re.Match(line) == *invert {
				return nil
			}
			found = true
			if hits++; *quiet || *list {
				return errStop
			}
			if *count {
				return nil
			}
			at := prefix
			if *number {
				at += strconv.Itoa(n) + ":"
			}
			texts := [][]byte{line}
			if *only && !*invert {
				texts = re.FindAll(line, -1)
			}
			for _, text := range texts {
				fmt.Fprintf(out, "%s%s\n", at, text)
			}
			return out.Flush()
		})
		if *count {
			fmt.Fprintf(out, "%s%d\n", prefix, hits)
		}
		if *list && hits > 0 {
			fmt.Fprintln(out, name)
		}
		if errors.Is(err, errStop) && !*quiet {
			err = nil
		}
		return err
	})
	switch {
	case errors.Is(err, errStop), err == nil && found:
		return nil
	case err != nil:
		return status(2)
	}
	return status(1)
}

// below are the files in folders.
func below(names []string) (files []string) {
	if len(names) == 0 {
		names = []string{"."}
	}
	for _, name := range names {
		filepath.WalkDir(name, func(file string, d fs.DirEntry, err error) error { //nolint:errcheck // an error is one when the file is opened
			if err != nil || d.Type().IsRegular() || file == name && !d.IsDir() {
				files = append(files, file)
			}
			return nil
		})
	}
	return files
}

// count parses -n N, also written -N, for head and tail.
func count(flags *pflag.FlagSet, args []string, min, max int) (n int, from bool, rest []string, err error) {
	args = slices.Clone(args)
	for i, arg := range args {
		if _, err := strconv.ParseUint(strings.TrimPrefix(arg, "-"), 10, 31); err == nil && arg[0] == '-' {
			args[i] = "-n" + arg[1:]
		}
	}
	text := flags.StringP("lines", "n", "10", "how many lines; tail +N: from line N on")
	if rest, err = parse(flags, args, "[-n LINES] [FILE]…", min, max); err != nil {
		return 0, false, nil, err
	}
	n, err = strconv.Atoi(*text)
	if err != nil || n < 0 {
		return 0, false, nil, usageError{fmt.Errorf("invalid number of lines %q", *text)}
	}
	return n, strings.HasPrefix(*text, "+"), rest, nil
}

func head(args []string) error {
	n, _, names, err := count(new(pflag.FlagSet), args, 0, -1)
	if err != nil {
		return err
	}
	return each(names, func(name string, in *os.File) error {
		title(names, name)
		left := n
		if left == 0 {
			return nil
		}
		err := lines(in, func(line []byte) error {
			if _, err := fmt.Printf("%s\n", line); err != nil {
				return err
			}
			if left--; left == 0 {
				return io.EOF
			}
			return nil
		})
		if err == io.EOF {
			err = nil
		}
		return err
	})
}

// title says which of several files comes.
func title(names []string, name string) {
	if len(names) > 1 {
		fmt.Printf("==> %s <==\n", name)
	}
}

func tail(args []string) error {
	flags := new(pflag.FlagSet)
	follow := flags.BoolP("follow", "f", false, "go on with what is appended")
	flags.BoolVarP(follow, "follow-name", "F", false, "the same")
	n, from, names, err := count(flags, args, 0, -1)
	if err != nil {
		return err
	}
	return each(names, func(name string, in *os.File) error {
		title(names, name)
		var last [][]byte
		seen := 0
		err := lines(in, func(line []byte) error {
			if seen++; from {
				if seen >= n {
					_, err := fmt.Printf("%s\n", line)
					return err
				}
				return nil
			}
			if last = append(last, line); len(last) > n {
				last = last[1:]
			}
			return nil
		})
		for _, line := range last {
			fmt.Printf("%s\n", line)
		}
		if err == nil && *follow {
			err = appended(in)
		}
		return err
	})
}

// appended prints what is appended to a file, until an interrupt.
func appended(in *os.File) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for {
		if _, err := io.Copy(os.Stdout, in); err != nil {
			return err
		}
		if info, err := in.Stat(); err == nil {
			if at, err := in.Seek(0, io.SeekCurrent); err == nil && info.Size() < at {
				in.Seek(0, io.SeekStart) //nolint:errcheck // it was emptied: read from the start
			}
		}
		select {
		case <-ctx.Done():
			return status(interrupted)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func wc(args []string) error {
	flags := new(pflag.FlagSet)
	flags.BoolP("lines", "l", false, "lines")
	flags.BoolP("words", "w", false, "words")
	flags.BoolP("bytes", "c", false, "bytes")
	flags.BoolP("chars", "m", false, "characters")
	names, err := parse(flags, args, "[-clmw] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	shown := []string{"lines", "words", "bytes"}
	if flags.NFlag() > 0 {
		shown = []string{"lines", "words", "chars", "bytes"}
		shown = slices.DeleteFunc(shown, func(s string) bool { return !flags.Changed(s) })
	}
	total := map[string]int{}
	say := func(n map[string]int, name string) {
		var columns []string
		for _, s := range shown {
			columns = append(columns, strconv.Itoa(n[s]))
		}
		if name != "-" {
			columns = append(columns, name)
		}
		fmt.Println(strings.Join(columns, " "))
	}
	err = each(names, func(name string, in *os.File) error {
		data, err := io.ReadAll(in)
		n := map[string]int{"lines": bytes.Count(data, []byte("\n")), "words": len(bytes.Fields(data)), "chars": utf8.RuneCount(data), "bytes": len(data)}
		for s := range n {
			total[s] += n[s]
		}
		if err == nil {
			say(n, name)
		}
		return err
	})
	if len(names) > 1 {
		say(total, "total")
	}
	return err
}

func sortLines(args []string) error {
	flags := new(pflag.FlagSet)
	numeric := flags.BoolP("numeric-sort", "n", false, "by numbers")
	reverse := flags.BoolP("reverse", "r", false, "the largest first")
	unique := flags.BoolP("unique", "u", false, "each line once")
	key := flags.IntP("key", "k", 0, "by this field, and what follows it")
	separator := flags.StringP("field-separator", "t", "", "between fields")
	names, err := parse(flags, args, "[-nru] [-k FIELD] [-t SEPARATOR] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	var all []string
	err = each(names, func(_ string, in *os.File) error {
		return lines(in, func(line []byte) error { all = append(all, string(line)); return nil })
	})
	field := func(line string) string {
		for n := 1; n < *key; n++ {
			if *separator != "" {
				_, line, _ = strings.Cut(line, *separator)
			} else {
				line = strings.TrimLeft(line, " \t")
				line = strings.TrimLeftFunc(line, func(r rune) bool { return r != ' ' && r != '\t' })
			}
		}
		return line
	}
	slices.SortStableFunc(all, func(a, b string) int {
		by := 0
		if *numeric {
			by = cmp.Compare(number(field(a)), number(field(b)))
		}
		if by = cmp.Or(by, strings.Compare(field(a), field(b)), strings.Compare(a, b)); *reverse {
			by = -by
		}
		return by
	})
	if *unique {
		all = slices.Compact(all)
	}
	out := bufio.NewWriter(os.Stdout)
	for _, line := range all {
		fmt.Fprintln(out, line)
	}
	return errors.Join(err, out.Flush())
}

var leading = regexp.MustCompile(`^\s*[-+]?[0-9]*\.?[0-9]*`)

// number is the number that a text begins with, 0 if there is none.
func number(text string) float64 {
	n, _ := strconv.ParseFloat(strings.TrimSpace(leading.FindString(text)), 64)
	return n
}
