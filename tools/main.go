// Tools is the shell and the tools of the variant for debugging: one program, and links to it
// that name the tools. The shell is mvdan.cc/sh, its line editor golang.org/x/term. The rest is
// here, as far as debugging a relay needs it.
//
// It promises the exit codes that POSIX has, and not all flags.
package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

// A tool is called with its arguments.
type tool func(args []string) error

var tools = map[string]tool{
	"cat": cat, "chmod": chmod, "cp": cp, "find": find, "ls": ls, "mkdir": mkdir, "mv": mv, "readlink": readlink, "rm": remove, "touch": touch,
	"cut": cut, "grep": grep, "head": head, "sort": sortLines, "tail": tail, "tee": tee, "wc": wc, "xargs": xargs,
	"date": date, "df": df, "env": env, "hostname": hostname, "id": id, "kill": kill, "ps": ps, "sleep": sleep, "uname": uname, "which": which,
	"host": host, "ip": ip, "nc": nc, "ss": ss, "wget": wget,
}

// status is an exit code; what led to it has been said.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// A usageError is a command line that a tool does not understand.
type usageError struct{ error }

func main() {
	quitQuietly()
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if name == "tools" && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	os.Args = append([]string{name}, args...)
	run := tools[name]
	switch {
	case strings.TrimPrefix(name, "-") == "sh":
		run = shell
	case name == "tools" || name == "--help":
		fmt.Printf("tools NAME [ARGUMENT]…, or a link NAME to it. Names: sh %s\n", strings.Join(slices.Sorted(maps.Keys(tools)), " "))
		return
	case run == nil:
		fmt.Fprintf(os.Stderr, "tools: no tool %s\n", name)
		os.Exit(127)
	}
	os.Exit(code(name, run(args)))
}

// code is the exit code that an error stands for. It says what has not been said.
func code(name string, err error) int {
	var code status
	var usage usageError
	switch {
	case err == nil, errors.Is(err, pflag.ErrHelp):
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.Is(err, syscall.EPIPE):
		return 128 + int(syscall.SIGPIPE)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	if errors.As(err, &usage) || name == "grep" {
		return 2
	}
	return 1
}

// parse parses a tool's flags and returns the other arguments: at least min of them, and
// at most max, unless that is negative. The text says what they are.
func parse(flags *pflag.FlagSet, args []string, text string, min, max int) ([]string, error) {
	flags.Init(os.Args[0], pflag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	flags.Usage = func() { fmt.Fprintf(os.Stderr, "usage: %s %s\n%s", os.Args[0], text, flags.FlagUsages()) }
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, usageError{err}
	}
	if n := flags.NArg(); n < min || max >= 0 && n > max {
		return nil, usageError{fmt.Errorf("usage: %s %s", os.Args[0], text)}
	}
	return flags.Args(), nil
}
