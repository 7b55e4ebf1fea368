package upstream

import (
	"cmp"
	"context"
	"fmt"
	"go/version"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/sync/errgroup"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// companions are inputs with the Go and the CA roots that go with a release.
func (s *Source) companions(ctx context.Context, r *releases, version string, in lock.Inputs) (lock.Inputs, error) {
	goMod, err := s.Modules.GoMod(ctx, releaseModule(version))
	if err != nil {
		return in, r.notServed(version, err)
	}
	if in.Go, err = s.toolchain(ctx, version, goMod, in.Go); err != nil {
		return in, err
	}
	in.Roots, err = s.roots(ctx, in.Roots)
	return in, err
}

// askedAtOnce is how many modules the proxy is asked for at the same time.
const askedAtOnce = 16

// buildList asks the module proxy for all modules that a release's go.mod requires: since Go
// 1.17 those are all that its packages are compiled of. A release that cannot be built is none
// to take. The error is an [*UnservedError].
func (s *Source) buildList(ctx context.Context, release string) error {
	goMod, err := s.Modules.GoMod(ctx, releaseModule(release))
	if err != nil {
		return err
	}
	f, err := modfile.Parse("go.mod of "+release, goMod, nil)
	if err != nil {
		return err
	}
	answers := make([]error, len(f.Require))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(askedAtOnce)
	for i, r := range f.Require {
		group.Go(func() error {
			err := s.Modules.Serves(gctx, r.Mod)
			if answers[i] = err; modproxy.NotServed(err) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("modules of %s: %w", release, err)
	}
	unserved := &UnservedError{Version: release, Asked: len(answers)}
	for i, r := range f.Require {
		if answers[i] != nil {
			unserved.Modules, unserved.Err = append(unserved.Modules, r.Mod), cmp.Or(unserved.Err, answers[i])
		}
	}
	if unserved.Err == nil {
		return nil
	}
	return unserved
}

// toolchainName is a toolchain that is a release: no beta, no candidate.
var toolchainName = regexp.MustCompile(`^v0\.0\.1-(go1\.[0-9]+\.[0-9]+)\.`)

// toolchain chooses the Go that compiles a release: the newest patch of the minor
// version that its go.mod names, no older than that, which the module proxy has for
// every host. Never another minor version: upstream has not tested with it. The
// one in have stays if there is none newer.
func (s *Source) toolchain(ctx context.Context, release string, goMod []byte, have lock.Go) (lock.Go, error) {
	f, err := modfile.Parse("go.mod of "+release, goMod, nil) // ParseLax skips toolchain
	if err != nil {
		return lock.Go{}, err
	}
	if f.Go == nil {
		return lock.Go{}, fmt.Errorf("go.mod of %s: names no Go version", release)
	}
	wanted := "go" + f.Go.Version
	if f.Toolchain != nil && version.Compare(f.Toolchain.Name, wanted) > 0 {
		wanted = f.Toolchain.Name
	}
	listed, err := s.Modules.Versions(ctx, lock.ToolchainModule)
	if err != nil {
		return lock.Go{}, err
	}
	candidates := []string{have.Version}
	if toolchainName.MatchString("v0.0.1-" + wanted + ".") {
		candidates = append(candidates, wanted) // a list may be some hours old
	}
	for _, v := range listed {
		if m := toolchainName.FindStringSubmatch(v); m != nil {
			candidates = append(candidates, m[1])
		}
	}
	candidates = slices.DeleteFunc(candidates, func(v string) bool {
		return version.Lang(v) != version.Lang(wanted) || version.Compare(v, wanted) < 0
	})
	slices.SortFunc(candidates, func(a, b string) int { return version.Compare(b, a) })
	for _, v := range slices.Compact(candidates) {
		if v == have.Version {
			return have, nil
		}
		g, err := s.sums(ctx, v)
		if !modproxy.NotServed(err) {
			return g, err
		}
		s.Warn("%s is passed over: %v", v, err)
	}
	return lock.Go{}, fmt.Errorf("%s wants %s: the module proxy has no release of %s from there on for every host: %s",
		release, wanted, version.Lang(wanted), strings.Join(lock.Hosts, ", "))
}

// sums makes sure that the module proxy has a toolchain for every host, and asks
// the checksum database for its sums.
func (s *Source) sums(ctx context.Context, toolchain string) (lock.Go, error) {
	g := lock.Go{Version: toolchain, Sums: map[string]string{}}
	for _, host := range lock.Hosts {
		sum, err := s.served(ctx, g.Module(host))
		if err != nil {
			return g, err
		}
		g.Sums[host] = sum
	}
	return g, nil
}

// served makes sure that the module proxy has a version, and returns its sum.
func (s *Source) served(ctx context.Context, m module.Version) (string, error) {
	if _, err := s.Modules.Info(ctx, m); err != nil {
		return "", err
	}
	return s.Modules.Sum(ctx, m)
}

// roots chooses the newest CA roots. Their module has no releases, only commits,
// and proxies differ in what they tell of such a module: proxy.golang.org has it at
// @latest, others have a list. Both are asked. What is in the lock stays when there
// is nothing newer, and with a warning when nothing could be found out.
func (s *Source) roots(ctx context.Context, have lock.Module) (lock.Module, error) {
	candidates, listErr := s.Modules.Versions(ctx, lock.RootsModule)
	if listErr != nil && !modproxy.NotServed(listErr) {
		return have, listErr
	}
	latest, latestErr := s.Modules.Latest(ctx, lock.RootsModule)
	switch {
	case latestErr == nil:
		candidates = append(candidates, latest.Version)
	case !modproxy.NotServed(latestErr):
		return have, latestErr
	case len(candidates) == 0 && have.Version != "":
		s.Warn("the newest CA roots could not be found out, kept are those of %s: %v", have.Version, latestErr)
		return have, nil
	case len(candidates) == 0:
		return have, latestErr
	}
	candidates = slices.DeleteFunc(candidates, func(v string) bool {
		return have.Version != "" && semver.Compare(v, have.Version) <= 0 || semver.Prerelease(v) != "" && !module.IsPseudoVersion(v)
	})
	semver.Sort(candidates)
	slices.Reverse(candidates)
	for _, v := range slices.Compact(candidates) {
		sum, err := s.served(ctx, module.Version{Path: lock.RootsModule, Version: v})
		if !modproxy.NotServed(err) {
			return lock.Module{Version: v, Sum: sum}, err
		}
		s.Warn("CA roots %s are passed over: %v", v, err)
	}
	if have.Version == "" {
		return have, fmt.Errorf("the module proxy has no version of %s", lock.RootsModule)
	}
	return have, nil
}
