//go:build linux

package progress

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// openTerminal opens a pseudo terminal of 100 columns.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		need.Missing(t, "a pseudo terminal", fmt.Sprintf("mount devpts (%v)", err))
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

func TestRealTerminal(t *testing.T) {
	for kind, bars := range map[string]bool{"xterm": true, "dumb": false} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("TERM", kind)
			master, terminal := openTerminal(t)
			d := New(terminal)
			if bars != (d.width != nil) {
				t.Errorf("bars: %v", d.width != nil)
			}
			if bars && d.width() != 100 {
				t.Errorf("%d columns", d.width())
			}
			task := d.Start("task", "packages")
			task.Set(1, 2)
			d.tick()
			d.Printf("a line")
			task.End(nil)
			d.Close()
			d.Printf("the end")
			var out string
			for buf := make([]byte, 4096); !strings.Contains(out, "the end\r\n"); {
				n, err := master.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				out += string(buf[:n])
			}
			if bars != strings.Contains(out, "█") || bars != strings.Contains(out, "\x1b") {
				t.Errorf("output: %q", out)
			}
			lines := screen(t, out)
			want := 3 // a line, task: done, the end
			if !bars {
				want = 5
			}
			if len(lines) != want || lines[len(lines)-1] != "the end" {
				t.Errorf("the screen has %q", lines)
			}
		})
	}
}
