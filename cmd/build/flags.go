package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/upstream"
)

// flagSet is a command's flags, with its help.
type flagSet struct {
	*flag.FlagSet
	help func()
}

// newFlags makes a command's flags. Its -h prints the synopsis, the flags and the
// example to stdout.
func newFlags(name, synopsis, example string, stdout io.Writer) *flagSet {
	f := &flagSet{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(io.Discard) // what is wrong is in the error
	f.Usage = func() {}
	f.help = func() {
		fmt.Fprintf(stdout, "%s\n\nusage: build %s\n\n", synopsis, name)
		f.SetOutput(stdout)
		f.PrintDefaults()
		fmt.Fprintf(stdout, "\nexample:\n%s\n", example)
	}
	return f
}

// justParse ends every command after its command line is parsed, with errParsed. A
// test of the workflows sets it.
var justParse bool

var errParsed = errors.New("the command line is parsed")

// parse parses flags before, between and after the arguments, and returns these.
func (f *flagSet) parse(args []string) (rest []string, err error) {
	if rest, err = f.split(args); err == nil && justParse {
		err = errParsed
	}
	return rest, err
}

// split tells flags and arguments apart.
func (f *flagSet) split(args []string) (rest []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				f.help()
				return nil, err
			}
			return nil, usageError("%w", err)
		}
		if f.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

// parseOnly parses flags where there are no arguments.
func (f *flagSet) parseOnly(args []string) error {
	rest, err := f.parse(args)
	if len(rest) > 0 {
		return usageError("unexpected argument %q", rest[0])
	}
	return err
}

// inputFlags are the flags of every command that reads the lock.
type inputFlags struct {
	lockFile, platforms, cacheDir string
	verifyCache                   bool
	create                        bool // of update: a lock that does not exist is made
}

func (f *inputFlags) register(flags *flagSet) {
	flags.StringVar(&f.lockFile, "lock", lock.File, "the lock `file`")
	flags.StringVar(&f.platforms, "platform", "host", "`platforms`, separated by commas; host is this machine's, all is every one in the lock")
}

func (f *inputFlags) registerCache(flags *flagSet) {
	flags.StringVar(&f.cacheDir, "cache", "", "cache `folder`; default is derper in the user cache directory")
	flags.BoolVar(&f.verifyCache, "verify-cache", false, "check everything in the cache and in the output by content")
}

// read reads the lock and chooses the platforms.
func (f *inputFlags) read() (*lock.Lock, []lock.Platform, error) {
	l, err := readLock(f.lockFile)
	if err != nil {
		return nil, nil, err
	}
	chosen, err := lock.ParsePlatforms(f.platforms, l.Inputs.Platforms)
	if err != nil {
		return nil, nil, usageError("--platform: %w", err)
	}
	return l, chosen, nil
}

// readLock reads a lock that must be there.
func readLock(name string) (*lock.Lock, error) {
	l, err := lock.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = &codedError{err, exitFailed, "run it in a checkout, or name the lock with --lock"}
	}
	return l, err
}

// openCache opens the cache that the flags name.
func (f *inputFlags) openCache() (*cache.Cache, error) {
	dir := f.cacheDir
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, &codedError{fmt.Errorf("cache: %w", err), exitFailed, "name a folder with --cache"}
		}
		dir = filepath.Join(user, "derper")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c, err := cache.Open(dir)
	if err != nil {
		return nil, err
	}
	c.VerifyAll = f.verifyCache
	return c, nil
}

// sumDB is the checksum database in modproxy's form; empty means sum.golang.org.
// Tests have one of their own.
var sumDB string

// upstreamRepository and publicSigstore are where tailscale's git repository and
// Sigstore are unless a flag says otherwise. Tests have theirs.
var (
	upstreamRepository = upstream.Repository
	publicSigstore     sigstoreFlags
)

// modules is the client through which modules are fetched. GOPROXY is the one
// variable of Go's that counts, and it decides only about the way.
func modules(c *cache.Cache) *modproxy.Client {
	return &modproxy.Client{
		Proxies: os.Getenv("GOPROXY"),
		SumDB:   sumDB,
		Dir:     filepath.Join(c.Dir(), "sumdb"),
		Temp:    c.Temp(),
	}
}

// hintFor is what to do about an error, "" for nothing special.
func hintFor(err error) string {
	var sum *modproxy.SumError
	switch {
	case errors.As(err, &sum):
		return "nothing of it was used; the lock or what was fetched has been tampered with, or the lock is wrong"
	case errors.Is(err, syscall.ENOSPC):
		return "free space on the disk, or name another place with --cache and --output; what was finished is kept"
	case errors.Is(err, image.ErrNotBuilt):
		return "name another folder with --output, or remove this one yourself"
	case errors.Is(err, cache.ErrNotCache):
		return "name another folder with --cache"
	case errors.Is(err, cache.ErrNoLocks):
		return "name a folder on another file system with --cache or --output"
	case errors.Is(err, cache.ErrInUse):
		return "wait for it to end"
	case errors.Is(err, image.ErrNoDocker):
		return "install Docker, or write an archive with --tarball FILE"
	case errors.Is(err, modproxy.ErrUnreachable):
		return "check the network, or set GOPROXY to a module proxy that can be reached"
	}
	return ""
}
