package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// newProgram is a program whose command work ends with an error.
func newProgram(work error) *Program {
	return &Program{
		Self: "./program",
		Root: func(stdout, _ io.Writer) *cobra.Command {
			root := &cobra.Command{Use: "program", Args: Unknown, RunE: func(*cobra.Command, []string) error { return nil }}
			group := &cobra.Command{Use: "group"}
			c := &cobra.Command{
				Use: "work FILE", Args: One("files"),
				PreRunE: func(_ *cobra.Command, args []string) error {
					if args[0] == "bad" {
						return Usage("work: %s is bad", args[0])
					}
					return nil
				},
				RunE: func(*cobra.Command, []string) error {
					io.WriteString(stdout, "result\n")
					return work
				},
			}
			c.Flags().String("level", "", "some `level`")
			group.AddCommand(c)
			root.AddCommand(Group(group))
			return root
		},
		Kept: func(command string) string { return command + " goes on" },
	}
}

// TestRun guards the exit code and the voice of every end that a program can come to.
func TestRun(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, tt := range []struct {
		name, args     string
		ctx            context.Context
		work           error
		code           int
		stdout, stderr string
	}{
		{"it worked", "group work file", t.Context(), nil, ExitOK, "result\n", ""},
		{"it did not", "group work file", t.Context(), errors.New("no"), ExitFailed, "result\n", "program: no\n"},
		{"with a hint", "group work file", t.Context(), Failed(errors.New("no"), "do this"), ExitFailed, "result\n", "program: no\nhint: do this\n"},
		{"with a code", "group work file", t.Context(), Coded(ExitDiffers, errors.New("no"), ""), ExitDiffers, "result\n", "program: no\n"},
		{"with lines of a stranger", "group work file", t.Context(), Failed(errors.New("it said: \x1b[2J\nprogram: fine\n::add-mask::a"), "read\nhint: no"), ExitFailed, "result\n",
			"program: it said: \\u001b[2J\n  program: fine\n  :\\u003aadd-mask::a\nhint: read\n  hint: no\n"},
		{"something new", "group work file", t.Context(), Coded(ExitNew, errors.New("new"), ""), ExitNew, "result\n", ""},
		{"interrupted", "group work file", stopped, errors.New("killed"), ExitInterrupted, "result\n", "program: interrupted\nhint: work goes on\n"},
		{"refused by the command", "group work bad", t.Context(), nil, ExitUsage, "", "program: work: bad is bad\nhint: ./program group work -h shows how it is used\n"},
		{"no argument", "group work", t.Context(), nil, ExitUsage, "", "program: group work: 0 files given, expected one\nhint: ./program group work -h shows how it is used\n"},
		{"no command", "group", t.Context(), nil, ExitUsage, "", "program: group: no command given, expected work\nhint: ./program group -h shows how it is used\n"},
		{"mistyped", "group wrok", t.Context(), nil, ExitUsage, "", "program: unknown command \"group wrok\"\nhint: did you mean work?\n"},
		{"mistyped, with a flag that only the right one has", "gruop --level 1", t.Context(), nil, ExitUsage, "", "program: unknown command \"gruop\"\nhint: did you mean group?\n"},
		{"one dash", "group work -level 1 file", t.Context(), nil, ExitUsage, "", "program: group work: unknown flag -level\nhint: a long flag has two dashes: --level\n"},
		{"one dash, of no flag", "group work -nosuch", t.Context(), nil, ExitUsage, "", "program: group work: unknown flag -n\nhint: ./program group work -h shows how it is used\n"},
		{"help of nothing", "help wrok", t.Context(), nil, ExitUsage, "", "program: unknown command \"wrok\"\nhint: ./program help -h shows how it is used\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			code := newProgram(tt.work).Run(tt.ctx, strings.Fields(tt.args), &stdout, &stderr)
			if code != tt.code || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
				t.Errorf("exit code %d, want %d\nstdout %q, want %q\nstderr %q, want %q", code, tt.code, stdout.String(), tt.stdout, stderr.String(), tt.stderr)
			}
		})
	}
}

// TestCheck guards that a command line is judged as it would be, and not carried out.
func TestCheck(t *testing.T) {
	for args, want := range map[string]bool{
		"group work file": true, "group work --level 1 file": true, "": true,
		"group work": false, "group work bad": false, "group work --lavel 1 file": false, "group wrok file": false, "wrok": false,
	} {
		var ran strings.Builder
		err := Check(newProgram(errors.New("no")).Root(&ran, io.Discard), strings.Fields(args))
		if (err == nil) != want || ran.Len() > 0 {
			t.Errorf("%q: %v, ran %q", args, err, &ran)
		}
	}
}

// TestHelp guards where help goes, and that one of a command shows its flags.
func TestHelp(t *testing.T) {
	for _, args := range []string{"group work -h", "group work --help", "help group work", "group work bad --help"} {
		var stdout, stderr strings.Builder
		code := newProgram(nil).Run(t.Context(), strings.Fields(args), &stdout, &stderr)
		if code != ExitOK || stderr.Len() > 0 || !strings.Contains(stdout.String(), "usage: program group work FILE [flags]\n") || !strings.Contains(stdout.String(), "--level level ") {
			t.Errorf("%s: exit code %d\n%s%s", args, code, &stdout, &stderr)
		}
	}
}
