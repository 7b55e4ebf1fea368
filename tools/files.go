package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/touch"
)

// commands are u-root's.
var commands = map[string]func() core.Command{
	"cat": cat.New, "chmod": chmod.New, "cp": cp.New,
	"mkdir": mkdir.New, "mv": mv.New, "touch": touch.New,
}

// files are the tools for files. Some say that something failed, and end as if it had not.
func files(args []string) error {
	name := os.Args[0]
	errs := &listener{to: os.Stderr}
	var err error
	for _, args := range runs(name, args) {
		command := commands[name]()
		command.SetIO(os.Stdin, os.Stdout, errs)
		command.SetLookupEnv(os.LookupEnv)
		ended := command.Run(args...)
		if errors.Is(ended, syscall.EXDEV) {
			ended = moveAcross(args)
		}
		err = errors.Join(err, ended)
	}
	if slices.Contains(args, "--help") || slices.Contains(args, "-help") {
		return nil
	}
	if err == nil && errs.failed {
		err = status(1)
	}
	return err
}

// moveAcross is mv to another file system, with the arguments of one file: a copy, after which
// the file is gone.
func moveAcross(args []string) error {
	names := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "-") })
	if len(names) != 2 {
		return usageError{errors.New("usage: mv [-nu] FILE… FILE|FOLDER")}
	}
	command := cp.New()
	command.SetIO(os.Stdin, os.Stdout, os.Stderr)
	if err := command.Run("-r", "-P", "-f", names[0], names[1]); err != nil {
		return err
	}
	return os.RemoveAll(names[0])
}

// runs are the command lines for u-root. Its cp forgets the errors of all sources but the last,
// and its mv ends at the first: they get one at a time.
func runs(name string, args []string) [][]string {
	flag := func(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-" }
	operands := slices.DeleteFunc(slices.Clone(args), flag)
	if name != "cp" && name != "mv" || len(operands) < 3 {
		return [][]string{args}
	}
	flags, to := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !flag(arg) }), operands[len(operands)-1]
	if fi, err := os.Stat(to); err != nil || !fi.IsDir() {
		return [][]string{args} // which it refuses
	}
	var list [][]string
	for _, from := range operands[:len(operands)-1] {
		list = append(list, slices.Concat(flags, []string{from, to}))
	}
	return list
}

// remove is rm. With -f, only what is not there is no error.
func remove(args []string) error {
	flags := newFlags()
	recursive := flags.BoolP("recursive", "r", false, "folders, with all that is in them")
	upper := flags.BoolP("Recursive", "R", false, "as -r")
	force := flags.BoolP("force", "f", false, "what is not there is no error")
	names, err := parse(flags, args, "[-rf] FILE…", 0, -1)
	if err != nil {
		return err
	}
	if len(names) == 0 && !*force {
		return usageError{errors.New("usage: rm [-rf] FILE…")}
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
		}
	}
	return failed
}

// A listener hands on what a tool says, and notes whether that is more than a question.
type listener struct {
	to     io.Writer
	failed bool
}

func (l *listener) Write(p []byte) (int, error) {
	l.failed = l.failed || !bytes.HasSuffix(p, []byte("? "))
	return l.to.Write(p)
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
