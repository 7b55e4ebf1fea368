package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// An amount is how much of a file head and tail print.
type amount struct {
	n     int64
	bytes bool // not lines
	from  bool // tail +N: from line or byte N on
}

// amountOf parses the command line of head and tail: -n N, also written -N, or -c N.
func amountOf(flags *pflag.FlagSet, args []string) (a amount, rest []string, err error) {
	args = slices.Clone(args)
	for i, arg := range args {
		if parts := oldCount.FindStringSubmatch(arg); parts != nil {
			args[i] = "-" + parts[2] + "n" + parts[1]
		}
		if arg == "--" {
			break
		}
	}
	n := flags.StringP("lines", "n", "10", "how many lines; tail +N: from line N on")
	c := flags.StringP("bytes", "c", "", "how many bytes, also with K, M or G behind; tail +N: from byte N on")
	flags.BoolP("quiet", "q", false, "no names of files")
	if rest, err = parse(flags, args, "[-n LINES | -c BYTES] [FILE]…", 0, -1); err != nil {
		return a, nil, err
	}
	text := *n
	if a.bytes = *c != ""; a.bytes {
		text = *c
	}
	number, unit := text, int64(1)
	if last := strings.IndexByte("KMG", strings.ToUpper(text + " ")[max(len(text)-1, 0)]); last >= 0 {
		number, unit = text[:len(text)-1], 1<<(10*(last+1))
	}
	if a.n, err = strconv.ParseInt(number, 10, 32); err != nil || a.n < 0 {
		return a, nil, usageError{fmt.Errorf("invalid number %q", text)}
	}
	a.n, a.from = a.n*unit, strings.HasPrefix(text, "+")
	return a, rest, nil
}

var oldCount = regexp.MustCompile(`^-([0-9]+)([fFq]*)$`)

func head(args []string) error {
	flags := newFlags()
	a, names, err := amountOf(flags, args)
	if err != nil {
		return err
	}
	title := titled(flags, names)
	return each(names, func(name string, in *os.File) error {
		if err := title(name); err != nil || a.n == 0 {
			return err
		}
		if a.bytes {
			_, err := io.Copy(os.Stdout, io.LimitReader(in, a.n))
			return err
		}
		left := a.n
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

// titled returns what says which of several files comes.
func titled(flags *pflag.FlagSet, names []string) func(name string) error {
	before := ""
	return func(name string) (err error) {
		if len(names) > 1 && !flags.Changed("quiet") {
			_, err = fmt.Printf("%s==> %s <==\n", before, name)
			before = "\n"
		}
		return err
	}
}

func tail(args []string) error {
	flags := newFlags()
	follow := flags.BoolP("follow", "f", false, "go on with what is appended")
	again := flags.BoolP("retry", "F", false, "as -f, and with a new file of that name")
	a, names, err := amountOf(flags, args)
	if err != nil {
		return err
	}
	title := titled(flags, names)
	var followed []*followedFile
	err = each(names, func(name string, in *os.File) error {
		if err := title(name); err != nil {
			return err
		}
		if err := a.last(in); err != nil || !*follow && !*again {
			return err
		}
		if info, err := in.Stat(); err == nil && name == "-" && info.Mode()&fs.ModeNamedPipe != 0 {
			return nil // nothing is appended to what has ended
		}
		followed = append(followed, &followedFile{name, in})
		return errKeep
	})
	if !*follow && !*again {
		return err
	}
	for _, name := range names {
		if *again && !slices.ContainsFunc(followed, func(f *followedFile) bool { return f.name == name }) {
			followed = append(followed, &followedFile{name: name}) // it may come yet
		}
	}
	if len(followed) == 0 {
		return err
	}
	return appended(followed, *again, title)
}

// last prints the end of a file.
func (a amount) last(in *os.File) error {
	if a.bytes {
		if info, err := in.Stat(); err == nil && info.Mode().IsRegular() && !a.from {
			if _, err := in.Seek(max(0, info.Size()-a.n), io.SeekStart); err != nil {
				return err
			}
			_, err = io.Copy(os.Stdout, in)
			return err
		}
		if a.from {
			if _, err := io.CopyN(io.Discard, in, max(a.n, 1)-1); err != nil && err != io.EOF {
				return err
			}
			_, err := io.Copy(os.Stdout, in)
			return err
		}
		data, err := io.ReadAll(in)
		_, failed := os.Stdout.Write(data[max(0, int64(len(data))-a.n):])
		return cmp.Or(err, failed)
	}
	var last [][]byte
	seen := int64(0)
	err := lines(in, func(line []byte) error {
		if seen++; a.from {
			if seen >= a.n {
				_, err := fmt.Printf("%s\n", line)
				return err
			}
			return nil
		}
		if last = append(last, line); int64(len(last)) > a.n {
			last = last[1:]
		}
		return nil
	})
	out := bufio.NewWriter(os.Stdout)
	for _, line := range last {
		fmt.Fprintf(out, "%s\n", line)
	}
	return cmp.Or(err, out.Flush())
}

// A followedFile is one that tail -f prints what is appended to.
type followedFile struct {
	name string
	in   *os.File // nil if it is not there yet
}

// appended prints what is appended to files, until an interrupt; again opens the new file that
// has the name of one.
func appended(files []*followedFile, again bool, title func(name string) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	shown := files[len(files)-1]
	for {
		for _, f := range files {
			if again {
				f.reopen()
			}
			if f.in == nil {
				continue
			}
			if info, err := f.in.Stat(); err == nil {
				at, err := f.in.Seek(0, io.SeekCurrent)
				switch {
				case err != nil: // it is a pipe
				case info.Size() < at:
					f.in.Seek(0, io.SeekStart) //nolint:errcheck // it was emptied: read from the start
				case info.Size() > at && shown != f:
					if err := title(f.name); err != nil {
						return err
					}
					shown = f
				}
			}
			if _, err := io.Copy(os.Stdout, f.in); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return status(interrupted)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// reopen opens a file anew, if another has its name now.
func (f *followedFile) reopen() {
	info, err := os.Stat(f.name)
	if err != nil || f.in == os.Stdin {
		return
	}
	if f.in != nil {
		if old, err := f.in.Stat(); err == nil && os.SameFile(old, info) {
			return
		}
	}
	if in, err := os.Open(f.name); err == nil {
		if f.in != nil {
			io.Copy(os.Stdout, f.in) //nolint:errcheck // what is left of the old one, as far as it can be read
			f.in.Close()
		}
		f.in = in
	}
}
