package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
)

// newCache has one command of its own, prune.
func newCache(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "cache COMMAND",
		Short:   "remove from the cache what the lock does not need",
		Long:    "cache has one command, which removes from the cache what the lock does not need.",
		Example: "  build cache prune",
	}
	c.AddCommand(newPrune(e))
	return cli.Group(c)
}

func newPrune(e *env) *cobra.Command {
	in := inputFlags{platforms: "all"}
	var all bool
	c := &cobra.Command{
		Use:   "prune",
		Short: "remove what a build of the lock does not take from the cache",
		Long: `prune removes what a build of the lock, with all its variants and platforms,
does not take from the cache: results of other locks, toolchains, modules and
compiled packages, which come again when they are needed.`,
		Example:           "  build cache prune",
		Args:              cli.None,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	in.registerLock(c)
	in.registerCache(c)
	c.Flags().BoolVar(&all, "all", false, "remove everything, the results of this lock too")
	c.RunE = func(*cobra.Command, []string) error {
		keep := map[string]bool{}
		if !all {
			l, platforms, err := in.read()
			if err != nil {
				return err
			}
			for _, v := range l.Inputs.Variants {
				of, err := l.Inputs.Of(v.Name)
				if err != nil {
					return err
				}
				p, err := pipeline.Plan(of, platforms)
				if err != nil {
					return err
				}
				for _, a := range p.Actions() {
					keep[a.Key()] = true
				}
			}
		}
		display := e.display()
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
		_, err = fmt.Fprintf(e.stdout, "%s: %s removed\n", c.Dir(), progress.Bytes(freed))
		return err
	}
	return c
}
