package upstream

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/dirhash"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// Prove proves that a release is one source wherever it is had from: that its tag
// names the commit, that the tree of the commit, packed as a module, has the sum
// which the checksum database has, and that the module proxy tells nothing else. It
// asks for everything anew. Errors are a [*MissingError], a [*Disagreement] or a
// [*modproxy.SumError] when the release is refused.
func (s *Source) Prove(ctx context.Context, t lock.Tailscale) error {
	tags, err := s.tags(ctx, "refs/tags/"+t.Version, "refs/tags/"+t.Version+"^{}")
	if err != nil {
		return err
	}
	r := &releases{tags: tags}
	c, remove, err := s.clone(ctx)
	if err != nil {
		return err
	}
	defer remove()
	got, err := s.prove(ctx, r, c, t.Version)
	if err != nil {
		return err
	}
	return agree(got, t)
}

// agree compares a proven release with the lock's of the same version.
func agree(proven, locked lock.Tailscale) error {
	switch {
	case proven.Commit != locked.Commit:
		return &Disagreement{Version: locked.Version, What: "commit", Git: proven.Commit, Other: locked.Commit, OtherFrom: "lock"}
	case !proven.Time.Equal(locked.Time):
		return disagreeOnTime(locked.Version, proven.Time, locked.Time, "lock")
	case proven.Sum != locked.Sum:
		return &modproxy.SumError{Module: releaseModule(locked.Version), Want: locked.Sum, WantFrom: "lock", Got: proven.Sum, GotFrom: "checksum database"}
	}
	return nil
}

// prove proves that a version is one source, and makes the lock's entry of it. Its
// tag, and those of others, are then in the clone.
func (s *Source) prove(ctx context.Context, r *releases, c *clone, version string, others ...string) (lock.Tailscale, error) {
	t := lock.Tailscale{Version: version, Commit: r.tags[version]}
	info, err := s.Modules.Info(ctx, releaseModule(version))
	if t.Commit == "" && modproxy.NotServed(err) {
		return t, fmt.Errorf("%s: neither the module proxy nor the git repository %s has it: %w", version, s.Shown(), err)
	}
	if err != nil {
		return t, r.notServed(version, err)
	}
	if t.Commit == "" {
		return t, &MissingError{Version: version, Has: "module proxy", Lacks: "git repository " + s.Shown()}
	}
	// Only a hint, and often missing; but one that contradicts is a warning.
	if o := info.Origin; o != nil && o.Hash != "" && o.Hash != t.Commit {
		return t, &Disagreement{Version: version, What: "commit", Git: t.Commit, Other: o.Hash, OtherFrom: "module proxy"}
	}
	if t.Sum, err = s.Modules.Sum(ctx, releaseModule(version)); err != nil {
		return t, r.notServed(version, err)
	}
	if err := c.fetch(ctx, s, append(others, version)...); err != nil {
		return t, err
	}
	var commit string
	if commit, t.Time, err = c.commit(ctx, version); err != nil {
		return t, err
	}
	if commit != t.Commit {
		// Moved since it was listed, or a tag of something that is no commit.
		return t, &Disagreement{Version: version, What: "commit", Git: commit, Other: t.Commit, OtherFrom: "the same repository a moment ago"}
	}
	got, err := s.sum(ctx, c, version, commit)
	if err != nil {
		return t, err
	}
	if got != t.Sum {
		return t, &modproxy.SumError{Module: releaseModule(version), Want: t.Sum, WantFrom: "checksum database",
			Got: got, GotFrom: "git commit " + commit + " of " + s.Shown()}
	}
	if !t.Time.Equal(info.Time) {
		return t, disagreeOnTime(version, t.Time, info.Time, "module proxy")
	}
	return t, nil
}

// sum is the h1 hash of the module that a commit is.
func (s *Source) sum(ctx context.Context, c *clone, version, commit string) (string, error) {
	f, err := os.Create(filepath.Join(c.dir, "module.zip"))
	if err != nil {
		return "", err
	}
	err = c.moduleZip(ctx, f, releaseModule(version), commit)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	return dirhash.HashZip(f.Name(), dirhash.Hash1)
}

func disagreeOnTime(version string, git, other time.Time, from string) error {
	return &Disagreement{Version: version, What: "commit time", Git: git.Format(time.RFC3339), Other: other.Format(time.RFC3339), OtherFrom: from}
}
