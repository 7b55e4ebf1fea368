//go:build linux

package progress

import (
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/printable"
	"github.com/xavieralpha/derper/internal/testing/terminal"
)

func TestRealTerminal(t *testing.T) {
	for kind, bars := range map[string]bool{"xterm": true, "dumb": false} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("TERM", kind)
			master, program := terminal.Open(t)
			d := New(printable.NewWriter(program)) // as the command line has it
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
