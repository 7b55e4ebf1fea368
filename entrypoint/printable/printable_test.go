package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// texts are texts, and how they are shown.
var texts = []struct{ text, shown string }{
	{"plain\ttext, ünïcode → 世界 🙂\n", "plain\ttext, ünïcode → 世界 🙂\n"},
	{"\x1b[2Jgone", `\u001b[2Jgone`},
	{"\x1b]0;title\a", `\u001b]0;title\u0007`},
	{"over\rwritten\b\x7f\x00", `over\u000dwritten\u0008\u007f\u0000`},
	{"\u009b2J", `\u009b2J`},               // the control sequence introducer as a character
	{"\x9b2J \xe2\x80", `\x9b2J \xe2\x80`}, // and as a byte; a character that is cut off
	{"gpj\u202eexe.", `gpj\u202eexe.`},     // shown from right to left
	{"\u2066\u2069\u200e\u061c\u200b\ufeff", `\u2066\u2069\u200e\u061c\u200b\ufeff`},
	{"a\u2028b\u2029c", `a\u2028b\u2029c`}, // ends of lines
	{"\U000e0041", `\udb40\udc41`},         // a tag, which is not seen
	{"::error::x\n \t::set-output name=a::b", `:\u003aerror::x` + "\n \t" + `:\u003aset-output name=a::b`},
	{"\u00a0::debug::", "\u00a0" + `:\u003adebug::`}, // .NET takes it for space
	{"a ::1 b", "a ::1 b"},
	{":", ":"}, {": :", ": :"}, {":\n:", ":\n:"},
	{"x ##[add-mask]y ###[ # #[ ##", `x ##\u005badd-mask]y ###\u005b # #[ ##`},
}

// TestText guards whoever reads a text of strangers.
func TestText(t *testing.T) {
	for _, tt := range texts {
		if got := Text(tt.text); got != tt.shown {
			t.Errorf("%q is %q, want %q", tt.text, got, tt.shown)
		}
		line := strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(tt.shown)
		if got := Line(tt.text); got != line {
			t.Errorf("line %q is %q, want %q", tt.text, got, line)
		}
	}
}

// TestWriter guards a text that comes in pieces: a character, or the beginning of a command,
// may be in two of them.
func TestWriter(t *testing.T) {
	for _, tt := range texts {
		for size := 1; size < 6; size++ {
			var b bytes.Buffer
			w := NewWriter(&b)
			for rest := []byte(tt.text + "\n"); len(rest) > 0; {
				piece := rest[:min(size, len(rest))]
				if n, err := w.Write(piece); n != len(piece) || err != nil {
					t.Fatal(n, err)
				}
				rest = rest[len(piece):]
			}
			if b.String() != tt.shown+"\n" {
				t.Errorf("%q in pieces of %d is %q, want %q", tt.text, size, &b, tt.shown)
			}
		}
	}
	full := errors.New("no space")
	w := NewWriter(&failing{full})
	if n, err := w.Write([]byte("x")); n != 0 || err != full {
		t.Errorf("a writer that fails: %d, %v", n, err)
	}
	if NewWriter(w) != w {
		t.Error("what is escaped is escaped twice")
	}
}

type failing struct{ err error }

func (f *failing) Write([]byte) (int, error) { return 0, f.err }

// TestJSON guards that what reads the result as JSON reads the same.
func TestJSON(t *testing.T) {
	for _, tt := range texts {
		text := strings.ToValidUTF8(tt.text, "")
		data, err := json.MarshalIndent(map[string]string{text: text}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		shown := Text(string(data))
		if strings.ContainsAny(shown, "\x1b\u009b\u202e\x7f") {
			t.Errorf("%q is shown raw: %q", text, shown)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(shown), &got); err != nil || got[text] != text {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
}

// FuzzText guards that nothing raw gets through, and that pieces do not matter.
func FuzzText(f *testing.F) {
	for _, tt := range texts {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown := Text(text)
		if Text(shown) != shown {
			t.Errorf("%q is %q, and then %q", text, shown, Text(shown))
		}
		var b bytes.Buffer
		w := NewWriter(&b)
		for i := range len(text) {
			w.Write([]byte{text[i]})
		}
		if !strings.HasPrefix(shown, b.String()) {
			t.Errorf("%q byte by byte is %q, want %q", text, &b, shown)
		}
	})
}
