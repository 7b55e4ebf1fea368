package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
)

// plannedAction is an action with its key, in JSON.
type plannedAction struct {
	Key    string          `json:"key"`
	Action json.RawMessage `json:"action"`
	Plan   *plan.Action    `json:"-"`
}

const planText = `{{range .}}{{.Key}}  {{.Plan.ID}}
{{range $name, $digest := .Plan.Inputs}}    {{$name}} {{$digest}}
{{end}}{{if .Plan.Args}}    $ {{.Plan.Shell}}
{{end}}{{end}}`

func runPlan(_ context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("plan [flags]", "plan prints what a build would do, without doing it: the actions with their keys,\nthe inputs, and the command as it can be copied into a shell with the pinned Go. A key is the\nSHA-256 of the action's canonical JSON.",
		"  build plan --platform all --json", stdout)
	var in inputFlags
	in.register(flags)
	flags.BoolVar(&flags.asJSON, "json", false, "print the actions whole, as JSON")
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
	var list []plannedAction
	for _, a := range p.Actions() {
		list = append(list, plannedAction{a.Key(), a.JSON(), a})
	}
	return flags.print(list, planText)
}
