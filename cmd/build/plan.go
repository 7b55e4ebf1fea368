package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
)

// plannedAction is an action with its key, in JSON.
type plannedAction struct {
	Key    string          `json:"key"`
	Action json.RawMessage `json:"action"`
}

// runPlan prints the plan.
func runPlan(_ context.Context, args []string, stdout, _ io.Writer) error {
	flags := newFlags("plan [flags]", "plan prints what a build would do, without doing it: the actions with their keys,\nthe inputs, and the command as it can be copied into a shell with the pinned Go. A key is the\nSHA-256 of the action's canonical JSON.",
		"  build plan --platform all --json", stdout)
	var in inputFlags
	in.register(flags)
	asJSON := flags.Bool("json", false, "print the actions whole, as JSON")
	if err := flags.parseOnly(args); err != nil {
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
			printAction(stdout, a)
		}
	}
	if *asJSON {
		return printJSON(stdout, list)
	}
	return nil
}

func printAction(w io.Writer, a *plan.Action) {
	fmt.Fprintf(w, "%s  %s\n", a.Key(), a.ID())
	for _, name := range slices.Sorted(maps.Keys(a.Inputs)) {
		fmt.Fprintf(w, "    %s %s\n", name, a.Inputs[name])
	}
	if len(a.Args) > 0 {
		fmt.Fprintf(w, "    $ %s\n", a.Shell())
	}
}
