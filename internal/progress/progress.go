// Package progress shows what is under way: a bar per task on a terminal, plain
// lines elsewhere.
//
// It promises to write to one writer only, whole lines at a time, and to leave a
// terminal as it was. What it is given to show is made printable: only its own bars
// move the cursor.
package progress

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/xavieralpha/derper/entrypoint/printable"
)

// How often bars are drawn, and a plain task says that it is still under way.
const (
	redraw = 100 * time.Millisecond
	remind = 30 * time.Second
)

// A Display shows tasks.
type Display struct {
	w     io.Writer
	width func() int // columns; nil when w is no terminal
	quiet bool       // tasks are not shown

	mu     sync.Mutex
	tasks  []*Task
	drawn  int // lines of bars on the screen
	closed chan struct{}
	done   sync.WaitGroup
}

// New shows tasks on w: as bars when that is a terminal.
func New(w io.Writer) *Display {
	w = raw(w)
	d := &Display{w: w, closed: make(chan struct{})}
	every := remind
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		every = redraw
		d.width = func() int {
			columns, _, err := term.GetSize(int(f.Fd()))
			if err != nil || columns < 40 {
				return 80
			}
			return columns
		}
	}
	d.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.tick()
			case <-d.closed:
				return
			}
		}
	})
	return d
}

// Quiet shows no tasks, and writes to w nothing but what Printf is given.
func Quiet(w io.Writer) *Display {
	return &Display{w: raw(w), quiet: true, closed: make(chan struct{})}
}

// raw is the writer that takes the control sequences of bars.
func raw(w io.Writer) io.Writer {
	if p, ok := w.(*printable.Writer); ok {
		return p.Raw()
	}
	return w
}

// Close ends the display and wipes its bars away.
func (d *Display) Close() {
	close(d.closed)
	d.done.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks = nil
	d.draw("")
}

// Printf writes a line, above the bars if there are any. Further lines in it are indented.
func (d *Display) Printf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draw(printable.Text(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n  ")) + "\n")
}

// A Task is something under way.
type Task struct {
	d           *Display
	what        string
	unit        string
	began       time.Time
	done, total int64
}

// Start shows a new task; what is a platform and a stage, or the like. Its amounts
// are counted in unit; "B" stands for bytes.
func (d *Display) Start(what, unit string) *Task {
	t := &Task{d: d, what: printable.Line(what), unit: unit, began: time.Now()}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks = append(d.tasks, t)
	line := ""
	if d.width == nil && !d.quiet {
		line = t.what + "\n"
	}
	d.draw(line)
	return t
}

// Set says how much of the task is done; a total below 1 is unknown.
func (t *Task) Set(done, total int64) {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.done, t.total = done, total
}

// Step says that one more is done.
func (t *Task) Step() {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	t.done++
}

// End ends the task, well or not.
func (t *Task) End(err error) {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks = slices.DeleteFunc(d.tasks, func(other *Task) bool { return other == t })
	how := "done in"
	if err != nil {
		how = "stopped after"
	}
	if !d.quiet {
		d.draw(fmt.Sprintf("%s: %s %.1fs\n", t.what, how, time.Since(t.began).Seconds()))
	}
}

func (d *Display) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.width != nil {
		d.draw("")
		return
	}
	for _, t := range d.tasks {
		fmt.Fprintf(d.w, "%s: %s, %.0fs\n", t.what, t.amount(), time.Since(t.began).Seconds())
	}
}

// draw replaces the bars on the screen by text and the bars as they are now.
func (d *Display) draw(text string) {
	if d.width == nil {
		io.WriteString(d.w, text)
		return
	}
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn) // up to the first bar
	}
	b.WriteString("\r\x1b[J") // wipe from here on
	b.WriteString(text)
	columns := d.width()
	for _, t := range d.tasks {
		b.WriteString(t.bar(columns) + "\n")
	}
	d.drawn = len(d.tasks)
	io.WriteString(d.w, b.String())
}

// bar is the task's line, at most so many columns wide.
func (t *Task) bar(columns int) string {
	// What stands around the bar takes up to 60 columns.
	width := max(8, min(columns-61, 24))
	fill := strings.Repeat(" ", width)
	if t.total > 0 {
		n := int(min(t.done, t.total) * int64(width) / t.total)
		fill = strings.Repeat("█", n) + strings.Repeat("░", width-n)
	}
	line := fmt.Sprintf("%-28s %s %5.0fs  %s", t.what, fill, time.Since(t.began).Seconds(), t.amount())
	if r := []rune(line); len(r) >= columns {
		line = string(r[:columns-1])
	}
	return line
}

// amount is how much is done, in words.
func (t *Task) amount() string {
	switch {
	case t.done == 0 && t.total <= 0:
		return "under way"
	case t.unit == "B" && t.total > 0:
		return Bytes(t.done) + " of " + Bytes(t.total)
	case t.unit == "B":
		return Bytes(t.done)
	case t.total > 0:
		return fmt.Sprintf("%d of %d %s", min(t.done, t.total), t.total, t.unit)
	}
	return fmt.Sprintf("%d %s", t.done, t.unit)
}

// Bytes is a size in bytes as people read it: 12.3 MB, in powers of 1000.
func Bytes(n int64) string {
	switch f := float64(n); {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 999_950: // which would be 1000.0 kB
		return fmt.Sprintf("%.1f kB", f/1e3)
	case n < 999_950_000:
		return fmt.Sprintf("%.1f MB", f/1e6)
	default:
		return fmt.Sprintf("%.2f GB", f/1e9)
	}
}

// Growth is by how much a number of bytes is larger or smaller than before.
func Growth(now, before int64) string {
	switch d := now - before; {
	case d > 0:
		return "+" + Bytes(d)
	case d < 0:
		return "−" + Bytes(-d)
	}
	return "±0"
}
