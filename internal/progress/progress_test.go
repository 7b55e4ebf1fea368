package progress

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// pieces is a writer that keeps what it gets in the pieces in which it comes.
type pieces []string

func (p *pieces) Write(data []byte) (int, error) {
	*p = append(*p, string(data))
	return len(data), nil
}

// In a log there is a line when something begins and when it ends, and nothing that
// only a terminal understands.
func TestPlain(t *testing.T) {
	got := new(pieces)
	d := New(got)
	compile := d.Start("compile linux/amd64", "packages")
	fetch := d.Start("toolchain go1.26.8", "B")
	compile.Set(0, 300)
	compile.Step()
	fetch.Set(1_500_000, 80_000_000)
	d.tick()
	d.Printf("cache: %s is damaged: made again", "x")
	compile.End(nil)
	fetch.End(errors.New("no network"))
	d.tick() // nothing is under way
	d.Close()
	d.Printf("after the end")
	want := []string{
		`^compile linux/amd64$`,
		`^toolchain go1\.26\.8$`,
		`^compile linux/amd64: 1 of 300 packages, \d+s$`,
		`^toolchain go1\.26\.8: 1\.5 MB of 80\.0 MB, \d+s$`,
		`^cache: x is damaged: made again$`,
		`^compile linux/amd64: done in \d+\.\ds$`,
		`^toolchain go1\.26\.8: stopped after \d+\.\ds$`,
		`^$`, // Close
		`^after the end$`,
	}
	lines := slices.DeleteFunc(*got, func(s string) bool { return s == "" })
	want = slices.DeleteFunc(want, func(s string) bool { return s == "^$" })
	if len(lines) != len(want) {
		t.Fatalf("%d lines, not %d:\n%q", len(lines), len(want), lines)
	}
	for i, line := range lines {
		// Each line in one piece: others write to the same log.
		text, ok := strings.CutSuffix(line, "\n")
		if !ok || strings.ContainsAny(text, "\n\r\x1b") || !regexp.MustCompile(want[i]).MatchString(text) {
			t.Errorf("line %d is %q, not %s", i, line, want[i])
		}
	}
}

// What a download and a compile say fits a terminal of the usual width.
func TestAmountFits(t *testing.T) {
	d := &Display{w: new(pieces), width: func() int { return 80 }, closed: make(chan struct{})}
	download, compile := d.Start("toolchain go1.26.8", "B"), d.Start("compile linux/riscv64", "packages")
	download.Set(123_400_000, 180_000_000)
	compile.Set(1234, 1300)
	for want, task := range map[string]*Task{"  123.4 MB of 180.0 MB": download, "  1234 of 1300 packages": compile} {
		if got := task.bar(80); !strings.HasSuffix(got, want) {
			t.Errorf("%q does not end with %q", got, want)
		}
	}
}

// Many tasks at once, as a build has them. The race detector sees to the rest.
func TestAtOnce(t *testing.T) {
	for _, width := range []func() int{nil, func() int { return 80 }} {
		got := new(pieces)
		d := New(got)
		d.width = width
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				task := d.Start(fmt.Sprint("task ", i), "things")
				for range 100 {
					task.Step()
				}
				d.tick()
				d.Printf("line %d", i)
				task.End(nil)
			})
		}
		all.Wait()
		d.Close()
		out := strings.Join(*got, "")
		for i := range 10 {
			for _, want := range []string{fmt.Sprintf("task %d: done in", i), fmt.Sprintf("line %d\n", i)} {
				if strings.Count(out, want) != 1 {
					t.Errorf("%q does not stand once", want)
				}
			}
		}
	}
}

// screen is what a terminal shows after it got the output: lines that are not
// empty.
func screen(t *testing.T, output string) (lines []string) {
	t.Helper()
	rows, row, column := [][]rune{nil}, 0, 0
	control := regexp.MustCompile(`^\x1b\[(\d*)([A-Z])`)
	for output != "" {
		if m := control.FindStringSubmatch(output); m != nil {
			output = output[len(m[0]):]
			switch m[2] {
			case "A":
				n, _ := strconv.Atoi(m[1])
				if row -= n; row < 0 {
					t.Fatal("above the first line")
				}
			case "J":
				rows = rows[:row+1]
				rows[row] = rows[row][:column]
			default:
				t.Fatalf("control sequence %q", m[0])
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(output)
		output = output[size:]
		switch r {
		case '\r':
			column = 0
		case '\n':
			row, column = row+1, 0
			if row == len(rows) {
				rows = append(rows, nil)
			}
		case '\x1b':
			t.Fatalf("control sequence %q", output)
		default:
			rows[row] = append(rows[row][:column], r)
			column++
		}
	}
	for _, r := range rows {
		if len(r) > 0 {
			lines = append(lines, string(r))
		}
	}
	return lines
}

// On a terminal, bars stand below the lines that stay, and are gone at the end.
func TestTerminal(t *testing.T) {
	got := new(pieces)
	d := &Display{w: got, width: func() int { return 80 }, closed: make(chan struct{})}
	shows := func(want ...string) {
		t.Helper()
		lines := screen(t, strings.Join(*got, ""))
		if len(lines) != len(want) {
			t.Fatalf("the screen has %q, not %q", lines, want)
		}
		for i, line := range lines {
			if !regexp.MustCompile(want[i]).MatchString(line) {
				t.Errorf("line %d is %q, not %s", i, line, want[i])
			}
		}
	}
	compile := d.Start("compile linux/amd64", "packages")
	fetch := d.Start("toolchain go1.26.8", "B")
	compile.Set(150, 300)
	d.tick()
	shows(`^compile linux/amd64 +█{9}░{10} +\d+s  150 of 300 packages$`, `^toolchain go1\.26\.8 +\d+s  under way$`)
	d.Printf("a warning")
	shows(`^a warning$`, `^compile linux/amd64 `, `^toolchain `)
	fetch.End(nil)
	shows(`^a warning$`, `^toolchain go1\.26\.8: done in`, `^compile linux/amd64 `)
	d.Close()
	shows(`^a warning$`, `^toolchain go1\.26\.8: done in`)
	d.Printf("after the end")
	shows(`^a warning$`, `^toolchain go1\.26\.8: done in`, `^after the end$`)
}

// A line that is longer than the terminal is wide would break, and what is drawn
// next would leave half of it.
func TestBarFits(t *testing.T) {
	d := &Display{w: new(pieces), width: func() int { return 80 }, closed: make(chan struct{})}
	for _, what := range []string{"short", strings.Repeat("long ", 40)} {
		task := d.Start(what, "B")
		for _, amount := range [][2]int64{{0, 0}, {0, 10}, {5, 10}, {10, 10}, {20, 10}, {1 << 40, 1 << 41}, {5, -1}} {
			task.Set(amount[0], amount[1])
			for _, columns := range []int{40, 80, 200} {
				if n := utf8.RuneCountInString(task.bar(columns)); n >= columns {
					t.Errorf("%s, %v: %d of %d columns", what, amount, n, columns)
				}
			}
		}
	}
}

func TestAmount(t *testing.T) {
	for _, test := range []struct {
		done, total int64
		unit, want  string
	}{
		{0, 0, "packages", "under way"},
		{0, -1, "B", "under way"},
		{0, 300, "packages", "0 of 300 packages"},
		{300, 300, "packages", "300 of 300 packages"},
		{301, 300, "packages", "300 of 300 packages"}, // the total was a guess
		{7, 0, "fetched", "7 fetched"},
		{1234, -1, "B", "1.2 kB"},
		{1234, 5_000_000, "B", "1.2 kB of 5.0 MB"},
	} {
		task := &Task{done: test.done, total: test.total, unit: test.unit}
		if got := task.amount(); got != test.want {
			t.Errorf("%d of %d %s: %q, not %q", test.done, test.total, test.unit, got, test.want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 12_345: "12.3 kB",
		999_949: "999.9 kB", 999_950: "1.0 MB", 999_999: "1.0 MB", 1_000_000: "1.0 MB",
		999_949_999: "999.9 MB", 999_999_999: "1.00 GB", 1_500_000_000: "1.50 GB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
	}
}

// A file or a pipe is no terminal, whatever the environment says.
func TestFileIsNoTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := New(f)
	d.Start("task", "").End(nil)
	d.Close()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^task\ntask: done in \d+\.\ds\n$`).Match(data) {
		t.Errorf("%q", data)
	}
}

// TestStranger guards the terminal against names and errors with control sequences, and the
// log against lines that look like the program's own.
func TestStranger(t *testing.T) {
	for _, width := range []func() int{nil, func() int { return 80 }} {
		got := new(pieces)
		d := &Display{w: got, width: width, closed: make(chan struct{})}
		task := d.Start("read \x1b[2Ja\nbuild: fine", "B")
		d.tick()
		d.Printf("cache: %v", errors.New("\x1b]0;title\a\n::error::b"))
		task.End(nil)
		d.Close()
		out := strings.Join(*got, "")
		for _, want := range []string{`read \u001b[2Ja\nbuild: fine`, `cache: \u001b]0;title\u0007` + "\n  " + `:\u003aerror::b` + "\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %q", want, out)
			}
		}
		for _, raw := range []string{"\x1b[2J", "\x1b]", "\a"} {
			if strings.Contains(out, raw) {
				t.Errorf("%q in %q", raw, out)
			}
		}
	}
}

// Who asked for quiet gets no progress, and every warning all the same.
func TestQuiet(t *testing.T) {
	got := new(pieces)
	d := Quiet(got)
	task := d.Start("compile linux/amd64", "packages")
	task.Step()
	d.Printf("cache: %s is damaged: made again", "x")
	task.End(nil)
	d.Start("fetch", "B").End(errors.New("no network"))
	d.Close()
	if want := "cache: x is damaged: made again\n"; strings.Join(*got, "") != want {
		t.Errorf("wrote %q, want %q", *got, want)
	}
}
