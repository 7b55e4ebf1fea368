package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// setOutputs gives values to the later steps of a workflow on GitHub, as name and
// value in turn. Elsewhere it does nothing.
// Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands.
func setOutputs(pairs ...string) error {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if strings.ContainsAny(pairs[i+1], "\r\n") {
			return fmt.Errorf("output %s: has more than one line: %q", pairs[i], pairs[i+1])
		}
		fmt.Fprintf(&b, "%s=%s\n", pairs[i], pairs[i+1])
	}
	return appendTo("GITHUB_OUTPUT", b.String())
}

// addSummary adds Markdown to the page of a workflow's run on GitHub. Elsewhere it
// does nothing.
func addSummary(markdown string) error {
	return appendTo("GITHUB_STEP_SUMMARY", strings.TrimRight(markdown, "\n")+"\n\n")
}

// appendTo adds to the file that a variable names, which other steps have, too.
func appendTo(variable, text string) error {
	name := os.Getenv(variable)
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	return nil
}
