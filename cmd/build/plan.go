package main

import (
	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/registry"
)

// planResult is what build plan says.
type planResult struct {
	// Version is the image's version. It may become another one when outputs are
	// recorded, where Recorded is not set.
	Version  string       `json:"version"`
	Recorded bool         `json:"recorded"`
	Variant  lock.Variant `json:"variant"`
	// Tags are the image's names in every registry. The first never moves.
	Tags []string `json:"tags"`
	// Inputs are the lock's, of this variant.
	Inputs  lock.Inputs     `json:"inputs"`
	Actions []plannedAction `json:"actions"`
}

// plannedAction is an action with its key, and with its command for a shell.
type plannedAction struct {
	Name    string       `json:"name"`
	Key     string       `json:"key"`
	Command string       `json:"command,omitempty"`
	Action  *plan.Action `json:"action"`
}

const planText = `image    {{.Version}}{{if not .Recorded}} (no outputs are recorded; --update-lock sets the revision){{end}}
variant  {{.Variant.Name}}: {{join .Variant.Programs ", "}}{{with .Variant.User}}, as user {{.}}{{end}}
tags     {{join .Tags ", "}}
source   {{.Inputs.Source}}
{{range .Inputs.Modules}}module   {{.Mod}}
{{end}}{{range .Inputs.Programs}}program  {{.Package}}{{with .Tags}}, build tags {{join . ","}}{{end}}
{{end}}
{{range .Actions}}{{.Key}}  {{.Name}}
{{range $name, $digest := .Action.Inputs}}    {{$name}} {{$digest}}
{{end}}{{with .Command}}    $ {{.}}
{{end}}{{end}}`

func newPlan(e *env) *cobra.Command {
	var in inputFlags
	c := &cobra.Command{
		Use:   "plan",
		Short: "print which image a build makes, and how",
		Long: `plan prints what a build would do, without doing it: which image of which
variant, under which tags, of which inputs; and the actions with their keys,
their inputs, and their commands. Who runs those of the kind compile with the
pinned Go gets the programs of the image. A key is the SHA-256 of the action in
compact JSON.`,
		Example:           "  build plan --platform all --json",
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	in.registerLock(c)
	in.registerVariants(c, lock.Default)
	c.Flags().Lookup("variant").Usage = "the `variant` of the image"
	in.registerPlatforms(c, "host", "in the lock")
	out := newPrinter(e, c)
	c.RunE = func(*cobra.Command, []string) error {
		l, platforms, err := in.read()
		if err != nil {
			return err
		}
		variants, err := in.chosenVariants(l)
		if err == nil && len(variants) != 1 {
			err = cli.Usage("--variant: expected one variant, got %d", len(variants))
		}
		if err == nil {
			l, err = l.Of(variants[0])
		}
		if err != nil {
			return err
		}
		r, err := planOf(l, platforms)
		if err != nil {
			return err
		}
		return out.print(r, planText)
	}
	return c
}

// planOf is the plan for platforms of a lock.
func planOf(l *lock.Lock, platforms []lock.Platform) (*planResult, error) {
	p, err := pipeline.Plan(l.Inputs, platforms)
	if err != nil {
		return nil, err
	}
	r := &planResult{Version: l.Inputs.Version(), Recorded: l.Output() != nil, Variant: l.Inputs.Variant(), Inputs: l.Inputs}
	tags, err := registry.Choice{}.Tags(l.Inputs)
	if err != nil {
		return nil, err
	}
	for _, tag := range tags {
		r.Tags = append(r.Tags, tag.Name)
	}
	for _, a := range p.Actions() {
		planned := plannedAction{Name: a.ID(), Key: a.Key(), Action: a}
		if a.Args != nil {
			planned.Command = a.Shell()
		}
		r.Actions = append(r.Actions, planned)
	}
	return r, nil
}
