package main

import (
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// An editor reads lines that somebody types. It asks the terminal for nothing, so any will do.
type editor struct {
	prompt   func() string
	complete func(line string, pos int, key rune) (string, int, bool)
	keys     *keys
	cooked   *term.State // the terminal's, for programs
	terminal *term.Terminal
	more     bool // the next line goes on with a statement
	ended    bool // by Ctrl-D, or with the terminal
}

func newEditor(prompt func() string, complete func(string, int, rune) (string, int, bool)) (*editor, error) {
	cooked, err := term.GetState(int(os.Stdin.Fd()))
	if err != nil {
		return nil, err
	}
	e := &editor{prompt: prompt, complete: complete, keys: &keys{File: os.Stdin}, cooked: cooked}
	e.renew()
	return e, nil
}

// renew begins with an empty line and keeps the history.
func (e *editor) renew() {
	old := e.terminal
	e.terminal = term.NewTerminal(e.keys, "")
	e.terminal.AutoCompleteCallback = e.complete
	if old != nil {
		e.terminal.History = old.History
	}
}

// line reads a line.
func (e *editor) line() (string, error) {
	fd := int(os.Stdin.Fd())
	if _, err := term.MakeRaw(fd); err != nil {
		e.ended = true
		return "", err
	}
	defer term.Restore(fd, e.cooked) //nolint:errcheck // a terminal that is gone ends the next line
	defer fit(e.terminal, fd)()
	if e.terminal.SetPrompt("> "); !e.more {
		e.terminal.SetPrompt(e.prompt())
	}
	e.keys.last = 0
	line, err := e.terminal.ReadLine()
	switch {
	case err == term.ErrPasteIndicator:
		return line, nil
	case err == io.EOF && e.keys.last == 3: // Ctrl-C
		e.renew()
		_, err = io.WriteString(e.keys, "^C\r\n")
		if err == nil {
			err = errInterrupted
		}
		return "", err
	case err != nil:
		e.ended = true
		io.WriteString(e.keys, "\r\n") //nolint:errcheck // it has ended
	}
	return line, err
}

// fit has a line be as wide as the terminal, now and when that changes, until done is called.
func fit(terminal *term.Terminal, fd int) (done func()) {
	resize := func() {
		if width, height, err := term.GetSize(fd); err == nil && width > 0 {
			terminal.SetSize(width, height) //nolint:errcheck // it draws what there is
		}
	}
	resize()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		for range resized {
			resize()
		}
	}()
	return func() {
		signal.Stop(resized)
		close(resized)
	}
}

// word is what is typed of a name, at the end, and special are the characters that a name has
// a backslash before.
var (
	word    = regexp.MustCompile(`(\\.|[^\s;|&<>(=\\])*$`)
	special = regexp.MustCompile(`[\s;|&<>()$` + "`" + `"'\\*?\[\]#~!{}]`)
)

// complete completes the name of a file in dir, or of a program of path in the first word.
func complete(dir, path, line string, pos int) (string, int) {
	start := word.FindStringIndex(line[:pos])[0]
	word := line[start:pos] // backslashes mean the same in a pattern
	folder, _ := filepath.Split(word)
	within := func(dir, name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return special.ReplaceAllString(dir, `\$0`) + "/" + name
	}
	patterns := []string{within(dir, word+"*")}
	if start == 0 && !strings.Contains(word, "/") {
		patterns = nil
		for _, programs := range filepath.SplitList(path) {
			if !filepath.IsAbs(programs) {
				programs = filepath.Join(dir, programs)
			}
			patterns = append(patterns, within(programs, word+"*"))
		}
	}
	var found []string
	for _, pattern := range patterns {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			typed := folder + special.ReplaceAllString(filepath.Base(name), `\$0`)
			if info, err := os.Stat(name); err == nil && info.IsDir() {
				typed += "/"
			}
			found = append(found, typed)
		}
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) == 0 {
		return line, pos
	}
	common := found[0]
	for _, name := range found[1:] {
		for !strings.HasPrefix(name, common) {
			_, size := utf8.DecodeLastRuneInString(common)
			common = common[:len(common)-size]
		}
	}
	if len(found) > 1 && strings.HasSuffix(common, `\`) {
		common = common[:len(common)-1] // what it was before is not common
	}
	if len(found) == 1 && !strings.HasSuffix(common, "/") {
		common += " "
	}
	return line[:start] + common + line[pos:], start + len(common)
}
