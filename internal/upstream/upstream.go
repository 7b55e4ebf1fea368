// Package upstream follows tailscale's releases: it finds them, chooses one, proves
// that its git tag and its module are the same source, and makes a lock's inputs of
// it.
//
// It promises that inputs which it returns are what the module proxy, the checksum
// database and the git repository agree on. Where one of them is silent, or says
// something else than another, there is an error and no inputs. It writes nothing
// but temporary files, and leaves to its callers what becomes of the inputs.
package upstream

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// web is where upstream shows its repository, and Repository the URL to fetch from.
const (
	web        = "https://github.com/tailscale/tailscale"
	Repository = web + ".git"
)

// A Source is where releases come from.
type Source struct {
	// Modules has the module proxy and the checksum database.
	Modules *modproxy.Client
	// Repository is the URL, or the folder, of upstream's git repository.
	Repository string
	// Warn gets what a maintainer should know and what is no error.
	Warn func(format string, args ...any)
	// Now is the time by which CA roots are old; the zero time is the clock's.
	Now time.Time
}

// CompareURL is the page that shows what changed between two releases.
func CompareURL(from, to string) string { return web + "/compare/" + from + "..." + to }

// ErrRepository says that the git repository gave no answer.
var ErrRepository = errors.New("git repository cannot be reached")

// A MissingError says that one source has a release that another lacks.
type MissingError struct {
	Version    string
	Has, Lacks string // sources
	Err        error  // what the one that lacks it answered; may be nil
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("%s: %s has it, %s does not", e.Version, e.Has, e.Lacks)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// An UnservedError says that the module proxy refuses, or does not have, modules that a release
// is compiled of.
type UnservedError struct {
	Version string
	Modules []module.Version
	Asked   int   // how many modules the release requires
	Err     error // the proxy's first answer
}

func (e *UnservedError) Error() string {
	var list strings.Builder
	for i, m := range e.Modules {
		if i == 10 {
			fmt.Fprintf(&list, " and %d more", len(e.Modules)-i)
			break
		}
		list.WriteString(" " + m.String())
	}
	return fmt.Sprintf("%s cannot be built: of the %d modules that it requires, the module proxy does not serve%s: %v", e.Version, e.Asked, &list, e.Err)
}

func (e *UnservedError) Unwrap() error { return e.Err }

func (e *MissingError) Unwrap() error { return e.Err }

// A Disagreement says that two sources tell different things about a release. That
// git's tree is not the module is a [*modproxy.SumError].
type Disagreement struct {
	Version string
	What    string // commit or commit time
	// Git is what the repository says, Other what OtherFrom says.
	Git, Other, OtherFrom string
}

func (e *Disagreement) Error() string {
	return fmt.Sprintf("%s: sources disagree on its %s: git repository says %s, %s says %s", e.Version, e.What, e.Git, e.OtherFrom, e.Other)
}

// A DowngradeError says that the newest release is older than the lock's.
type DowngradeError struct {
	Locked, Newest string
	Channel        lock.Channel
	Retracted      bool // upstream has retracted the lock's
}

func (e *DowngradeError) Error() string {
	why := ""
	if e.Retracted {
		why = ", which upstream has retracted"
	}
	return fmt.Sprintf("the newest %s release is %s, older than the lock's %s%s", e.Channel, e.Newest, e.Locked, why)
}

// releaseModule is a release as a module.
func releaseModule(version string) module.Version {
	return module.Version{Path: lock.TailscaleModule, Version: version}
}

// isRelease reports whether a version or a tag can be a release: no commit between
// two of them, and no tag that means something else.
func isRelease(version string) bool {
	return module.Check(lock.TailscaleModule, version) == nil && semver.Canonical(version) == version && !module.IsPseudoVersion(version)
}
