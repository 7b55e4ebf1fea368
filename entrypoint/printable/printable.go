// Package printable makes text harmless for whoever reads it, on a terminal or in the log
// of a workflow: names, errors and logs have words of strangers in them.
//
// What a terminal would carry out, or show in another order than it is written, becomes
// visible as \u and four hexadecimal digits: all but the end of a line and the tab of
// what Unicode calls control and format characters. A byte that is no UTF-8 is \x and
// two. JSON remains JSON of the same meaning.
//
// GitHub Actions carries out a line that begins with two colons, and ##[ anywhere in one.
// The last character of either is escaped, too.
// Source: https://github.com/actions/runner/blob/main/src/Runner.Common/ActionCommand.cs.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is s with lines.
func Text(s string) string {
	var b bytes.Buffer
	f := filter{begins: true}
	f.add(&b, []byte(s), true)
	return b.String()
}

// Line is s on one line: an end of a line, and a tab, is escaped, too.
func Line(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(Text(s))
}

// A Writer passes text on as [Text] does, whatever pieces it comes in. The first bytes of
// a character wait for the rest of it. Any number of goroutines may write.
type Writer struct {
	w    io.Writer
	mu   sync.Mutex
	f    filter
	rest []byte // of a character whose end is yet to come
}

// NewWriter passes text on to w. What is one already is not given another.
func NewWriter(w io.Writer) *Writer {
	if already, ok := w.(*Writer); ok {
		return already
	}
	return &Writer{w: w, f: filter{begins: true}}
}

// Raw is what it writes to, for who draws on a terminal.
func (w *Writer) Raw() io.Writer { return w.w }

func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b bytes.Buffer
	w.rest = bytes.Clone(w.f.add(&b, append(w.rest, p...), false))
	if _, err := w.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A filter knows where in a line it is.
type filter struct {
	begins bool // nothing but space since the line began
	colon  bool // and then one colon
	hashes int  // just before
}

// add appends text to b. It returns the first bytes of a character at the end, unless
// that is the last of it.
func (f *filter) add(b *bytes.Buffer, p []byte, last bool) (rest []byte) {
	b.Grow(len(p))
	for len(p) > 0 {
		if !last && !utf8.FullRune(p) {
			return p
		}
		r, size := utf8.DecodeRune(p)
		command := f.colon && r == ':' || f.hashes >= 2 && r == '['
		f.colon = f.begins && r == ':'
		f.begins = r == '\n' || f.begins && unicode.IsSpace(r)
		if f.hashes++; r != '#' {
			f.hashes = 0
		}
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(b, `\x%02x`, p[0])
		case r > 0xffff && unicode.Is(unicode.Cf, r):
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		case command, r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.Write(p[:size])
		}
		p = p[size:]
	}
	return nil
}
