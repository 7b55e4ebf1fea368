package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"time"

	"golang.org/x/sys/unix"
)

func mkdir(args []string) error {
	flags := newFlags()
	parents := flags.BoolP("parents", "p", false, "folders above, too; one that is there is no error")
	mode := flags.StringP("mode", "m", "", "its mode, as for chmod")
	verbose := flags.BoolP("verbose", "v", false, "say what is made")
	names, err := parse(flags, args, "[-pv] [-m MODE] FOLDER…", 1, -1)
	if err != nil {
		return err
	}
	bits, err := changed(cmp.Or(*mode, "777"), 0o777)
	if err != nil {
		return usageError{err}
	}
	var failed error
	for _, name := range names {
		_, before := os.Stat(name)
		make := os.Mkdir
		if *parents {
			make = os.MkdirAll
		}
		err := make(name, 0o777)
		if err == nil && *mode != "" && before != nil { // whatever the umask
			err = unix.Chmod(name, bits)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "mkdir:", err)
			failed = status(1)
		} else if *verbose && before != nil {
			fmt.Println("made", name)
		}
	}
	return failed
}

func touch(args []string) error {
	flags := newFlags()
	access := flags.BoolP("access", "a", false, "only when it was read")
	modified := flags.BoolP("modified", "m", false, "only when it was written")
	stay := flags.BoolP("no-create", "c", false, "make no file")
	at := flags.StringP("date", "d", "", "this time, not now: @SECONDS since 1970, or as date -Iseconds prints it")
	like := flags.StringP("reference", "r", "", "the time of this file")
	names, err := parse(flags, args, "[-acm] [-d TIME | -r FILE] FILE…", 1, -1)
	if err != nil {
		return err
	}
	now := time.Now()
	if *at != "" {
		if now, err = timeOf(*at); err != nil {
			return usageError{err}
		}
	}
	if *like != "" {
		info, err := os.Stat(*like)
		if err != nil {
			return err
		}
		now = info.ModTime()
	}
	read, written := now, now // a zero time leaves what is there
	switch {
	case *access && !*modified:
		written = time.Time{}
	case *modified && !*access:
		read = time.Time{}
	}
	var failed error
	for _, name := range names {
		_, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			if *stay {
				continue
			}
			var f *os.File
			if f, err = os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o666); err == nil {
				err = f.Close()
			}
		}
		if err == nil {
			err = os.Chtimes(name, read, written)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "touch:", err)
			failed = status(1)
		}
	}
	return failed
}

func cat(args []string) error {
	flags := newFlags()
	number := flags.BoolP("number", "n", false, "with the number of each line")
	flags.BoolP("unbuffered", "u", false, "at once, as always")
	names, err := parse(flags, args, "[-nu] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	n := 0
	return each(names, func(_ string, in *os.File) error {
		if !*number {
			_, err := io.Copy(os.Stdout, in)
			return err
		}
		out := bufio.NewWriter(os.Stdout)
		err := lines(in, func(line []byte) error {
			n++
			_, err := fmt.Fprintf(out, "%6d\t%s\n", n, line)
			return err
		})
		return cmp.Or(err, out.Flush())
	})
}

// readlink prints what links lead to.
func readlink(args []string) error {
	flags := newFlags()
	real := flags.BoolP("canonicalize", "f", false, "the path without any link")
	names, err := parse(flags, args, "[-f] FILE…", 1, -1)
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		to, err := "", error(nil)
		if *real {
			if to, err = filepath.Abs(name); err == nil {
				to, err = filepath.EvalSymlinks(to)
			}
		} else {
			to, err = os.Readlink(name)
		}
		if err != nil {
			failed = status(1)
		} else if _, err := fmt.Println(to); err != nil {
			return err
		}
	}
	return failed
}

// remove is rm. With -f, only what is not there is no error.
func remove(args []string) error {
	flags := newFlags()
	recursive := flags.BoolP("recursive", "r", false, "folders, with all that is in them")
	upper := flags.BoolP("Recursive", "R", false, "as -r")
	force := flags.BoolP("force", "f", false, "what is not there is no error")
	verbose := flags.BoolP("verbose", "v", false, "say what is removed")
	names, err := parse(flags, args, "[-rfv] FILE…", 0, -1)
	if err != nil {
		return err
	}
	if len(names) == 0 && !*force {
		return usageError{errors.New("usage: rm [-rfv] FILE…")}
	}
	var failed error
	for _, name := range names {
		fi, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && *force:
			continue
		case err != nil:
		case fi.IsDir() && !*recursive && !*upper:
			err = fmt.Errorf("%s: is a folder", name)
		case filepath.Base(name) == "." || filepath.Base(name) == ".." || filepath.Clean(name) == "/":
			err = fmt.Errorf("%s: is not removed", name)
		default:
			err = os.RemoveAll(name)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "rm:", err)
			failed = status(1)
		} else if *verbose {
			fmt.Println("removed", name)
		}
	}
	return failed
}

func tee(args []string) error {
	flags := newFlags()
	more := flags.BoolP("append", "a", false, "append to the files")
	names, err := parse(flags, args, "[-a] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	how := os.O_TRUNC
	if *more {
		how = os.O_APPEND
	}
	to, failed := []io.Writer{os.Stdout}, error(nil)
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|how, 0o666)
		if err != nil { // the others get it all the same
			fmt.Fprintln(os.Stderr, "tee:", err)
			failed = status(1)
			continue
		}
		defer f.Close()
		to = append(to, f)
	}
	_, err = io.Copy(io.MultiWriter(to...), os.Stdin)
	return cmp.Or(err, failed)
}
