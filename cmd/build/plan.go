package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/xavieralpha/derper/internal/pipeline"
)

// plannedAction is an action with its key, in JSON.
type plannedAction struct {
	Key    string          `json:"key"`
	Action json.RawMessage `json:"action"`
}

// runPlan prints the plan.
func runPlan(_ context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("plan [flags]", "plan prints what a build would do, without doing it: a line per action, with its key.\nA key is the SHA-256 of the action's canonical JSON.",
		"  build plan --platform all --json", stdout)
	var in inputFlags
	in.register(flags)
	asJSON := flags.Bool("json", false, "print the actions whole, as JSON")
	if err := parse(flags, args); err != nil {
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
		list = append(list, plannedAction{a.Key(), a.JSON()})
		if !*asJSON {
			fmt.Fprintf(stdout, "%s  %s\n", a.Key(), a.ID())
		}
	}
	if *asJSON {
		return printJSON(stdout, list)
	}
	return nil
}
