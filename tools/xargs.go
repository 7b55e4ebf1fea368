package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"unicode"
)

// argumentBytes are as many as one command gets, of the 128 KiB and more that Linux lets it have.
const argumentBytes = 100_000

// command is a program. The ones that are only known to the shell here are run by it.
func command(line []string) *exec.Cmd {
	cmd := exec.Command(line[0], line[1:]...)
	if self, err := os.Executable(); err == nil && errors.Is(cmd.Err, exec.ErrNotFound) && slices.Contains([]string{"echo", "true", "false", "printf", "test", "["}, line[0]) {
		cmd = &exec.Cmd{Path: self, Args: append([]string{"sh", "-c", `"$@"`, "sh"}, line...)}
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func xargs(args []string) error {
	flags := newFlags()
	flags.SetInterspersed(false) // what follows the command is the command's
	number := flags.IntP("max-args", "n", 0, "at most so many arguments for a command")
	perLine := flags.IntP("max-lines", "L", 0, "so many lines for a command")
	replace := flags.StringP("replace", "I", "", "a text that stands for a line in the command, which runs once for each")
	noRun := flags.BoolP("no-run-if-empty", "r", false, "without arguments, no command")
	null := flags.BoolP("null", "0", false, "arguments end with NUL; quotes are nothing special")
	show := flags.BoolP("verbose", "t", false, "say what is run")
	words, err := parse(flags, args, "[-0rt] [-n NUMBER] [-L LINES] [-I TEXT] [COMMAND [ARGUMENT]…]", 0, -1)
	if err != nil {
		return err
	}
	if *number < 0 || *perLine < 0 || flags.Changed("replace") && *replace == "" {
		return usageError{errors.New("invalid argument of -n, -L or -I")}
	}
	if len(words) == 0 {
		words = []string{"echo"}
	}
	failed, ran := error(nil), false
	run := func(line []string) error {
		ran = true
		if *show {
			fmt.Fprintln(os.Stderr, strings.Join(line, " "))
		}
		err := command(line).Run()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &exit) && exit.ExitCode() < 0:
			fmt.Fprintf(os.Stderr, "xargs: %s: %v\n", line[0], err)
			return status(125)
		case errors.As(err, &exit) && exit.ExitCode() == 255:
			fmt.Fprintf(os.Stderr, "xargs: %s: %v\n", line[0], err)
			return status(124)
		case errors.As(err, &exit):
			failed = status(123)
			return nil
		}
		fmt.Fprintln(os.Stderr, "xargs:", err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return status(127)
		}
		return status(126)
	}
	var batch []string
	size, read := 0, 0 // bytes and lines of the batch
	flush := func() error {
		line := slices.Concat(words, batch)
		batch, size, read = nil, 0, 0
		return run(line)
	}
	end := byte('\n')
	if *null {
		end = 0
	}
	err = split(os.Stdin, end, func(text []byte) error {
		arguments := []string{string(text)}
		switch {
		case *null:
		default:
			var err error
			if arguments, err = unquote(string(text), *replace == ""); err != nil {
				return err
			}
		}
		if *replace != "" {
			if len(arguments) == 0 {
				return nil
			}
			var line []string
			for _, word := range words {
				line = append(line, strings.ReplaceAll(word, *replace, arguments[0]))
			}
			return run(line)
		}
		for _, argument := range arguments {
			if len(batch) > 0 && size+len(argument) > argumentBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			size += len(argument) + 1
			if batch = append(batch, argument); len(batch) == *number {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		if len(arguments) > 0 {
			read++
		}
		if *perLine > 0 && read == *perLine && len(batch) > 0 {
			return flush()
		}
		return nil
	})
	if err == nil && (len(batch) > 0 || !ran && !*noRun && *replace == "") {
		err = flush()
	}
	if err != nil {
		return err
	}
	return failed
}

// unquote are the words of a line, where quotes and backslashes keep blanks; or all of it as
// one, but for the blanks in front.
func unquote(line string, blanks bool) (words []string, err error) {
	word, in, quote, escaped := "", false, rune(0), false
	for _, r := range line {
		switch {
		case escaped:
			word, escaped = word+string(r), false
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\\':
			escaped, in = true, true
		case r == '\'' || r == '"':
			quote, in = r, true
		case unicode.IsSpace(r) && (blanks || !in):
			if in {
				words = append(words, word)
			}
			word, in = "", false
		default:
			word, in = word+string(r), true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c without its end: -0 takes names as they are", quote)
	}
	if in {
		words = append(words, word)
	}
	return words, nil
}

// exec runs a command for each file, or, up to a +, for many.
func (f *finder) exec() condition {
	var words []string
	for {
		word := f.next("the ; or {} + of -exec")
		if f.err != nil {
			return nil
		}
		if word == ";" {
			break
		}
		if words = append(words, word); word == "+" && len(words) > 2 && words[len(words)-2] == "{}" {
			return f.execMany(words[:len(words)-2])
		}
	}
	if len(words) == 0 {
		f.err = errors.New("-exec has no command")
	}
	return func(file *found) bool {
		var line []string
		for _, word := range words {
			line = append(line, strings.ReplaceAll(word, "{}", file.path))
		}
		return f.run(line) == nil
	}
}

func (f *finder) execMany(words []string) condition {
	var paths []string
	size := 0
	run := func() {
		if len(paths) > 0 && f.run(slices.Concat(words, paths)) != nil {
			f.failed = status(1)
		}
		paths, size = nil, 0
	}
	f.atEnd = append(f.atEnd, run)
	return func(file *found) bool {
		paths = append(paths, file.path)
		if size += len(file.path) + 1; size > argumentBytes {
			run()
		}
		return true
	}
}

// run runs a command. That one fails is an answer; that it cannot be run is an error.
func (f *finder) run(line []string) error {
	f.out.Flush() //nolint:errcheck // the last one says it
	cmd := command(line)
	cmd.Stdin = os.Stdin
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		f.fail(err)
	}
	return err
}
