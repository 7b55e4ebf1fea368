package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"text/template"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/upstream"
)

// flagSet is a command's flags, with its help and its result.
type flagSet struct {
	*flag.FlagSet
	stdout io.Writer
	asJSON bool // set by the flag --json of those that have one
}

// newFlags makes a command's flags. Its -h prints the synopsis, the flags and the
// example to stdout.
func newFlags(name, synopsis, example string, stdout io.Writer) *flagSet {
	f := &flagSet{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), stdout: stdout}
	f.Usage = func() {
		fmt.Fprintf(stdout, "%s\n\nusage: build %s\n\n", synopsis, name)
		f.SetOutput(stdout)
		f.PrintDefaults()
		fmt.Fprintf(stdout, "\nexample:\n%s\n", example)
	}
	return f
}

// justParse ends every command after its command line is parsed, as its help does. A
// test of the workflows sets it.
var justParse bool

// parse parses flags before, between and after the arguments, and returns these. check
// refuses a command line; nil refuses arguments.
func (f *flagSet) parse(args []string, check func(rest []string) error) ([]string, error) {
	rest, err := cli.Parse(f.FlagSet, args)
	switch {
	case err != nil:
	case check != nil:
		err = check(rest)
	case len(rest) > 0:
		err = cli.Usage("unexpected argument %q", rest[0])
	}
	if err == nil && justParse {
		err = flag.ErrHelp
	}
	return rest, err
}

// parseOne parses flags and one argument, which may be left out if there is another to
// take in its place. what is the word for several of them.
func (f *flagSet) parseOne(args []string, what, otherwise string) (string, error) {
	rest, err := f.parse(args, func(rest []string) error {
		name, _, _ := strings.Cut(f.Name(), " ")
		switch {
		case len(rest) > 1:
			return cli.Usage("%s: unexpected argument %q: %d %s given, wants one", name, rest[1], len(rest), what)
		case len(rest) == 0 && otherwise == "":
			return cli.Usage("%s: 0 %s given, wants one", name, what)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return append(rest, otherwise)[0], nil
}

// collect is the value of a flag that may be repeated, and may be a list with commas. It
// replaces what the list has without the flag.
func collect(list *[]string, checks ...func(string) error) func(string) error {
	var given []string
	return func(s string) error {
		for word := range strings.SplitSeq(s, ",") {
			word = strings.TrimSpace(word)
			for _, check := range checks {
				if err := check(word); err != nil {
					return err
				}
			}
			given = append(given, word)
		}
		*list = given
		return nil
	}
}

// print prints a result: all of it with --json, otherwise what text, a template, has.
func (f *flagSet) print(result any, text string) error {
	if f.asJSON {
		return printJSON(f.stdout, result)
	}
	return render(f.stdout, text, result)
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// render writes what a template makes of data. Tabs align columns.
func render(w io.Writer, text string, data any) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	t := template.New("").Funcs(template.FuncMap{"bytes": progress.Bytes, "join": strings.Join, "self": self})
	return errors.Join(template.Must(t.Parse(text)).Execute(tw, data), tw.Flush())
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
		return nil, nil, cli.Usage("--platform: %w", err)
	}
	return l, chosen, nil
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
