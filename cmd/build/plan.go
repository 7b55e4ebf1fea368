package main

import (
	"context"
	"io"

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
{{range .Inputs.Programs}}program  {{.Package}}{{with .Tags}}, build tags {{join . ","}}{{end}}
{{end}}
{{range .Actions}}{{.Key}}  {{.Name}}
{{range $name, $digest := .Action.Inputs}}    {{$name}} {{$digest}}
{{end}}{{with .Command}}    $ {{.}}
{{end}}{{end}}`

func runPlan(_ context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("plan [flags]", "plan prints what a build would do, without doing it: which image of which variant, under which\ntags, of which inputs; and the actions with their keys, their inputs, and their commands. Who runs those of the\nkind compile with the pinned Go gets the programs of the image. A key is the SHA-256 of the action in compact JSON.",
		"  build plan --platform all --json", stdout)
	var in inputFlags
	in.register(flags)
	flags.BoolVar(&flags.asJSON, "json", false, "print all of it as JSON")
	if _, err := flags.parse(args, nil); err != nil {
		return err
	}
	l, platforms, err := in.read()
	if err != nil {
		return err
	}
	p, err := pipeline.Plan(l.Inputs, platforms)
	if err != nil {
		return err
	}
	r := planResult{Version: l.Inputs.Version(), Recorded: l.Output() != nil, Variant: l.Inputs.Variant()}
	if r.Inputs, err = l.Inputs.Of(r.Variant.Name); err != nil {
		return err
	}
	v := l.Inputs.ImageVersion()
	for _, tag := range registry.Tags(v, r.Variant.Suffix, lock.ChannelOf(v.Tailscale)) {
		r.Tags = append(r.Tags, tag.Name)
	}
	for _, a := range p.Actions() {
		planned := plannedAction{Name: a.ID(), Key: a.Key(), Action: a}
		if a.Args != nil {
			planned.Command = a.Shell()
		}
		r.Actions = append(r.Actions, planned)
	}
	return flags.print(r, planText)
}
