package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
)

// inputFlags are the flags of the commands that read the lock.
type inputFlags struct {
	lockFile, variants, platforms, cacheDir string
	verifyCache                             bool
}

func (f *inputFlags) registerLock(c *cobra.Command) {
	c.Flags().StringVar(&f.lockFile, "lock", lock.File, "the lock `file`")
}

// registerVariants registers --variant.
func (f *inputFlags) registerVariants(c *cobra.Command, preset string) {
	c.Flags().StringVar(&f.variants, "variant", preset, "`variants` of the image, separated by commas; all is every one in the lock")
	cli.Offer(c, "variant", append([]string{"all"}, lock.Defaults().VariantNames()...)...)
}

// chosenVariants is the value of --variant, in the order of the lock. default is the lock's
// first variant if none has that name: --variant is not needed for a lock of one variant.
func (f *inputFlags) chosenVariants(l *lock.Lock) ([]string, error) {
	all := l.Inputs.VariantNames()
	chosen := map[string]bool{}
	for word := range strings.SplitSeq(f.variants, ",") {
		switch word = strings.TrimSpace(word); {
		case word == "all":
			return all, nil
		case word == lock.Default && !slices.Contains(all, word):
			word = all[0]
		case !slices.Contains(all, word):
			return nil, cli.Usage("--variant: %s has no variant %q: it has %s", f.lockFile, word, strings.Join(all, ", "))
		}
		chosen[word] = true
	}
	return slices.DeleteFunc(all, func(name string) bool { return !chosen[name] }), nil
}

// registerPlatforms registers --platform; of says of what all platforms are all.
func (f *inputFlags) registerPlatforms(c *cobra.Command, preset, of string) {
	c.Flags().StringVar(&f.platforms, "platform", preset, "`platforms`, separated by commas; host is this machine's, all is every one "+of)
	cli.Offer(c, "platform", append([]string{"host", "all"}, words(lock.Known)...)...)
}

func (f *inputFlags) registerCache(c *cobra.Command) {
	c.Flags().StringVar(&f.cacheDir, "cache", "", "cache `folder` (default derper in the user cache directory)")
	c.Flags().BoolVar(&f.verifyCache, "verify-cache", false, "check everything in the cache and in the output by content")
}

// read reads the lock and chooses the platforms.
func (f *inputFlags) read() (*lock.Lock, []lock.Platform, error) {
	l, err := readLock(f.lockFile)
	if err != nil {
		return nil, nil, err
	}
	chosen, err := parsePlatforms(f.platforms, l.Inputs.Platforms)
	return l, chosen, err
}

// platform is the one platform that was chosen, of all that an image can be for.
func (f *inputFlags) platform() (lock.Platform, error) {
	chosen, err := parsePlatforms(f.platforms, lock.Known)
	if err == nil && len(chosen) != 1 {
		err = cli.Usage("--platform: expected one platform, got %d", len(chosen))
	}
	return append(chosen, "")[0], err
}

// parsePlatforms is the value of --platform.
func parsePlatforms(names string, all []lock.Platform) ([]lock.Platform, error) {
	chosen, err := lock.ParsePlatforms(names, all)
	if err != nil {
		err = cli.Usage("--platform: %w", err)
	}
	return chosen, err
}

// readLock reads a lock that must be there.
func readLock(name string) (*lock.Lock, error) {
	l, err := lock.Read(name)
	return l, explain(err, hints{{is(fs.ErrNotExist), "run it in a checkout, or name the lock with --lock"}})
}

// openCache opens the cache that the flags name. Its warnings are shown.
func (f *inputFlags) openCache(display *progress.Display) (*cache.Cache, error) {
	dir, err := filepath.Abs(f.cacheDir)
	if f.cacheDir == "" {
		dir, err = os.UserCacheDir()
		dir = filepath.Join(dir, "derper")
	}
	if err != nil {
		return nil, cli.Failed(fmt.Errorf("cache: %w", err), "name a folder with --cache")
	}
	c, err := cache.Open(dir)
	if err != nil {
		return nil, err
	}
	c.VerifyAll, c.Warn = f.verifyCache, display.Printf
	return c, nil
}

// registerTo registers --to, the repositories to publish in; use says what for.
func registerTo(c *cobra.Command, to *[]string, use, preset string) {
	registerList(c, to, "to", "`repository` "+use+", HOST/PATH; may be repeated, or a list with commas (default "+preset+")")
}

// registerList registers a flag that may be repeated, and may be a list with commas. A word
// that is empty stays in it, to be refused: a variable of a script that is not set is no wish
// for the default.
func registerList(c *cobra.Command, words *[]string, name, usage string) {
	c.Flags().Func(name, usage, func(s string) error {
		for word := range strings.SplitSeq(s, ",") {
			*words = append(*words, strings.TrimSpace(word))
		}
		return nil
	})
}

// publishedIn are the repositories that the image is published in, for the help.
var publishedIn = strings.Join(registry.Default, " and ")

// checkRepositories checks the value of --to.
func checkRepositories(names []string) error {
	for _, name := range names {
		if err := registry.CheckName(name); err != nil {
			return cli.Usage("--to: %w", err)
		}
	}
	return nil
}

// argument is the argument of a command, or another in its place.
func argument(args []string, otherwise string) string { return append(args, otherwise)[0] }

// checkLayout refuses an argument that is no path of a layout.
func checkLayout(c *cobra.Command, args []string) error {
	for _, source := range args {
		if err := registry.CheckPath(source); err != nil {
			return cli.Usage("%s: %w", c.Name(), err)
		}
	}
	return nil
}

// given are the flags that a command was started with, but for these.
func given(c *cobra.Command, without ...string) (list []string) {
	c.Flags().Visit(func(f *pflag.Flag) {
		switch {
		case slices.Contains(without, f.Name):
		case f.Value.Type() == "bool":
			list = append(list, "--"+f.Name+"="+f.Value.String())
		default:
			list = append(list, "--"+f.Name, f.Value.String())
		}
	})
	return list
}

// words are values as strings.
func words[T ~string](values []T) (list []string) {
	for v := range slices.Values(values) {
		list = append(list, string(v))
	}
	return list
}
