package main

import (
	"context"
	"fmt"
	"io"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// runCache has one command of its own, prune.
func runCache(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("cache prune [flags]", "cache prune removes what a build of the lock does not take from the cache: results of other\nlocks, toolchains, modules and compiled packages, which come again when they are needed.",
		"  build cache prune", stdout)
	var in inputFlags
	in.register(flags)
	in.registerCache(flags)
	all := flags.Bool("all", false, "remove everything, the results of this lock too")
	_, err := flags.parse(args, func(words []string) error {
		if len(words) != 1 || words[0] != "prune" {
			return cli.Usage("cache: expected subcommand \"prune\"")
		}
		return nil
	})
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	if !*all {
		in.platforms = "all"
		l, platforms, err := in.read()
		if err != nil {
			return err
		}
		p, err := pipeline.Plan(l.Inputs, platforms)
		if err != nil {
			return err
		}
		for _, a := range p.Actions() {
			keep[a.Key()] = true
		}
	}
	display := progress.New(stderr)
	defer display.Close()
	c, err := in.openCache(display)
	if err != nil {
		return err
	}
	defer c.Close()
	freed, err := c.Prune(func(key string) bool { return keep[key] })
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %s removed\n", c.Dir(), progress.Bytes(freed))
	return nil
}
