package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// After is the annotation of a command with the text that comes last in its help.
const After = "after"

// helpText is the help of a command, in cobra's terms. The whole of it fits into 80 columns.
const helpText = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}usage: {{.UseLine}}
{{if .HasAvailableSubCommands}}
commands:
{{range .Commands}}{{if .IsAvailableCommand}}  {{rpad .Name 18}}{{.Short}}
{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}
flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
flags of every command:
{{.InheritedFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}
{{end}}{{if .HasExample}}
example:
{{.Example | trimTrailingWhitespaces}}
{{end}}{{with .Annotations.after}}
{{. | trimTrailingWhitespaces}}
{{end}}`

// newHelp is the command help of a program.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "show the help of a command", Example: "  " + root.Name() + " help test",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = Unknown(about, rest)
			}
			if err != nil {
				return err
			}
			return about.Help()
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			if about, _, err := c.Root().Find(args); err == nil {
				for _, sub := range about.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// forShells writes what flags are for as a shell shows it: without the quotes around the
// name of the value.
func forShells(c *cobra.Command) {
	plain := func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) }
	c.LocalFlags().VisitAll(plain)
	for _, sub := range c.Commands() {
		forShells(sub)
	}
}

// Offer has a shell complete the value of a flag with these, and each word of a list with
// commas.
func Offer(c *cobra.Command, flag string, values ...string) {
	err := c.RegisterFlagCompletionFunc(flag, func(_ *cobra.Command, _ []string, given string) (list []cobra.Completion, _ cobra.ShellCompDirective) {
		before := given[:strings.LastIndex(given, ",")+1]
		for _, v := range values {
			list = append(list, before+v)
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is not registered
	}
}

// shells are those for which there is a completion.
var shells = map[string]func(root *cobra.Command, w io.Writer) error{
	"bash": func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
	"zsh":  (*cobra.Command).GenZshCompletion,
	"fish": func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
}

// NewCompletion is the command completion of a program.
func NewCompletion(program string) *cobra.Command {
	names := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print the completion script of a shell",
		Long: `completion prints a script by which a shell completes the commands and flags of
this program, and their values. The program has to be in PATH; bash needs the
package bash-completion.`,
		Example: strings.ReplaceAll(`  source <(PROGRAM completion bash)     in ~/.bashrc, for all shells
  source <(PROGRAM completion zsh)      in ~/.zshrc, after compinit
  PROGRAM completion fish >~/.config/fish/completions/PROGRAM.fish`, "PROGRAM", program),
		ValidArgs: names,
		Args: func(c *cobra.Command, args []string) error {
			if err := One("shells")(c, args); err != nil {
				return err
			}
			if shells[args[0]] == nil {
				return Usage("completion: unknown shell %q, expected one of %s", args[0], strings.Join(names, ", "))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := shells[args[0]](c.Root(), c.OutOrStdout()); err != nil {
				return fmt.Errorf("completion: %w", err)
			}
			return nil
		},
	}
}
