package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// releases are what the sources have.
type releases struct {
	*repository
	proxy     []string           // listed by the module proxy
	retracted []*modfile.Retract // taken back by upstream
}

func (r *releases) isRetracted(version string) bool {
	return slices.ContainsFunc(r.retracted, func(i *modfile.Retract) bool {
		return semver.Compare(i.Low, version) <= 0 && semver.Compare(version, i.High) <= 0
	})
}

// all are the releases that any source has, lowest first.
func (r *releases) all() []string {
	list := append(slices.Collect(maps.Keys(r.tags)), r.proxy...)
	semver.Sort(list)
	return slices.Compact(list)
}

// last is the highest release that ok takes, "" for none.
func (r *releases) last(ok func(version string) bool) string {
	for _, v := range slices.Backward(r.all()) {
		if ok(v) {
			return v
		}
	}
	return ""
}

// newest is the channel's newest release.
func (r *releases) newest(c lock.Channel) string {
	return r.last(func(v string) bool { return lock.ChannelOf(v) == c && !r.isRetracted(v) })
}

// find asks both sources. When one gives no answer, the error says what the other
// has. The repository in what it returns must be closed.
func (s *Source) find(ctx context.Context, c lock.Channel) (r *releases, err error) {
	r = new(releases)
	var proxyErr, gitErr error
	var both sync.WaitGroup
	both.Go(func() {
		var versions []string
		versions, proxyErr = s.Modules.Versions(ctx, lock.TailscaleModule)
		r.proxy = slices.DeleteFunc(versions, func(v string) bool { return !isRelease(v) })
	})
	both.Go(func() { r.repository, gitErr = s.open(ctx) })
	both.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	other := "git repository"
	if proxyErr != nil {
		proxyErr = fmt.Errorf("module proxy: %w", proxyErr)
	} else {
		err = s.retractions(ctx, r)
		other = "module proxy"
	}
	switch failed := errors.Join(gitErr, proxyErr); {
	case failed == nil:
		return r, err
	case (gitErr == nil || proxyErr == nil) && r.newest(c) != "":
		return nil, fmt.Errorf("%w; the %s alone says that the newest %s release is %s", failed, other, c, r.newest(c))
	default:
		return nil, failed
	}
}

// retractions finds out what upstream has taken back. As for the go command, the
// newest version's go.mod decides, and a pre-release counts only when there is
// nothing else. Source: https://go.dev/ref/mod#go-mod-file-retract.
func (s *Source) retractions(ctx context.Context, r *releases) error {
	v := cmp.Or(r.last(func(v string) bool { return semver.Prerelease(v) == "" }), r.last(isRelease))
	if v == "" {
		return nil
	}
	data, err := s.Modules.GoMod(ctx, releaseModule(v))
	if err != nil {
		return r.notServed(v, err)
	}
	f, err := modfile.ParseLax("go.mod of "+v, data, nil)
	if err != nil {
		return err
	}
	r.retracted = f.Retract
	return nil
}

// notServed makes an error of the module proxy's for a version one that says who
// has it.
func (r *releases) notServed(version string, err error) error {
	if !modproxy.NotServed(err) {
		return err
	}
	has := "module proxy's list"
	if _, ok := r.tags[version]; ok {
		has = "git repository"
	}
	return &MissingError{Version: version, Has: has, Lacks: "module proxy", Err: err}
}

// compare warns of releases above the lock's that only one source has. The chosen
// one is examined elsewhere, and is no warning.
func (s *Source) compare(r *releases, c lock.Channel, locked, chosen string) {
	var listed, tagged []string
	for _, v := range r.all() {
		if v == chosen || lock.ChannelOf(v) != c || semver.Compare(v, locked) <= 0 {
			continue
		}
		if _, ok := r.tags[v]; !ok {
			listed = append(listed, v)
		} else if !slices.Contains(r.proxy, v) {
			tagged = append(tagged, v)
		}
	}
	if listed != nil {
		s.Warn("only the module proxy has %s", strings.Join(listed, ", "))
	}
	if tagged != nil {
		s.Warn("only the git repository has %s", strings.Join(tagged, ", "))
	}
}
