package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/find"
	"github.com/u-root/u-root/pkg/core/ls"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/touch"
	"github.com/u-root/u-root/pkg/core/xargs"
)

// commands are u-root's.
var commands = map[string]func() core.Command{
	"cat": cat.New, "chmod": chmod.New, "cp": cp.New, "find": find.New, "ls": ls.New,
	"mkdir": mkdir.New, "mv": mv.New, "rm": rm.New, "touch": touch.New, "xargs": func() core.Command { return xargs.New() },
}

// files are the tools for files. Some say that something failed, and end as if it had not.
func files(args []string) error {
	name := os.Args[0]
	errs := &listener{to: os.Stderr}
	if name == "ls" {
		args = present(args, errs)
	}
	command := commands[name]()
	command.SetIO(os.Stdin, os.Stdout, errs)
	command.SetLookupEnv(os.LookupEnv)
	err := command.Run(args...)
	if slices.Contains(args, "--help") || slices.Contains(args, "-help") {
		return nil
	}
	if err == nil && errs.failed {
		err = status(1)
	}
	return err
}

// present leaves files out that are not there, which ls would say on its output.
func present(args []string, errs io.Writer) []string {
	left := slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		if strings.HasPrefix(arg, "-") {
			return false
		}
		_, err := os.Lstat(arg)
		if err != nil {
			fmt.Fprintln(errs, "ls:", err)
		}
		return err != nil
	})
	if len(left) < len(args) && !slices.ContainsFunc(left, func(arg string) bool { return !strings.HasPrefix(arg, "-") }) {
		os.Exit(1) // nothing is left of what was asked for
	}
	return left
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
	flags := new(pflag.FlagSet)
	more := flags.BoolP("append", "a", false, "append to the files")
	names, err := parse(flags, args, "[-a] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	how := os.O_TRUNC
	if *more {
		how = os.O_APPEND
	}
	to := []io.Writer{os.Stdout}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|how, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		to = append(to, f)
	}
	_, err = io.Copy(io.MultiWriter(to...), os.Stdin)
	return err
}
