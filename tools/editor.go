package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/term"
)

// An editor reads lines that somebody types. It asks the terminal for nothing, so any will do.
type editor struct {
	prompt   func() string
	keys     *keys
	cooked   *term.State // the terminal's, for programs
	terminal *term.Terminal
	rest     string // of the line that was read last
	more     bool   // the next line goes on with a statement
	ended    bool   // by Ctrl-D, or with the terminal
}

func newEditor(prompt func() string) (*editor, error) {
	cooked, err := term.GetState(int(os.Stdin.Fd()))
	if err != nil {
		return nil, err
	}
	e := &editor{prompt: prompt, keys: &keys{File: os.Stdin}, cooked: cooked}
	e.renew()
	return e, nil
}

// renew begins with an empty line and keeps the history.
func (e *editor) renew() {
	old := e.terminal
	e.terminal = term.NewTerminal(e.keys, "")
	e.terminal.AutoCompleteCallback = complete
	if old != nil {
		e.terminal.History = old.History
	}
}

// Read reads a line; it is the parser's input.
func (e *editor) Read(p []byte) (int, error) {
	if e.rest == "" {
		line, err := e.line()
		if err != nil {
			return 0, err
		}
		e.rest = line + "\n"
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *editor) line() (string, error) {
	fd := int(os.Stdin.Fd())
	if _, err := term.MakeRaw(fd); err != nil {
		e.ended = true
		return "", err
	}
	defer term.Restore(fd, e.cooked) //nolint:errcheck // a terminal that is gone ends the next line
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		e.terminal.SetSize(width, height) //nolint:errcheck // it draws what there is
	}
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

// word is what is typed of a name, at the end, and special are the characters that a name has
// a backslash before.
var (
	word    = regexp.MustCompile(`(\\.|[^\s;|&<>(=\\])*$`)
	special = regexp.MustCompile(`[\s;|&<>()$` + "`" + `"'\\*?\[\]#~!{}]`)
)

// complete completes the name of a file, or of a program in the first word, on Tab.
func complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	start := word.FindStringIndex(line[:pos])[0]
	word := line[start:pos] // backslashes mean the same in a pattern
	folder, _ := filepath.Split(word)
	patterns := []string{word + "*"}
	if start == 0 && !strings.Contains(word, "/") {
		patterns = nil
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			patterns = append(patterns, filepath.Join(dir, word+"*"))
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
		return line, pos, true
	}
	common := found[0]
	for _, name := range found[1:] {
		for !strings.HasPrefix(name, common) {
			common = common[:len(common)-1]
		}
	}
	if len(found) > 1 && strings.HasSuffix(common, `\`) {
		common = common[:len(common)-1] // what it was before is not common
	}
	if len(found) == 1 && !strings.HasSuffix(common, "/") {
		common += " "
	}
	return line[:start] + common + line[pos:], start + len(common), true
}
