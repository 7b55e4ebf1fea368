package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
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
			if err = use(name, in); err == errKeep {
				continue
			}
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

// newFlags are flags that may stand anywhere among the arguments before --.
func newFlags() *pflag.FlagSet {
	flags := new(pflag.FlagSet)
	flags.SetInterspersed(true)
	return flags
}

// errStop ends each. errKeep has it leave a file open.
var (
	errStop = errors.New("no more files")
	errKeep = errors.New("still needed")
)

// lines reads lines without their ends, however long.
func lines(in io.Reader, use func(line []byte) error) error { return split(in, '\n', use) }

// split reads what ends with a byte, without that.
func split(in io.Reader, end byte, use func(text []byte) error) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes(end)
		if len(line) > 0 {
			if err := use(bytes.TrimSuffix(line, []byte{end})); err != nil {
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

func wc(args []string) error {
	flags := newFlags()
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
	out := bufio.NewWriter(os.Stdout)
	total := map[string]int{}
	say := func(n map[string]int, name string) {
		var columns []string
		for _, s := range shown {
			columns = append(columns, strconv.Itoa(n[s]))
		}
		if name != "-" {
			columns = append(columns, name)
		}
		fmt.Fprintln(out, strings.Join(columns, " "))
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
	return cmp.Or(out.Flush(), err)
}
