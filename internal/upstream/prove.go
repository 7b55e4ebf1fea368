package upstream

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// Prove proves that a release is one source wherever it is had from: that its tag
// names the commit, that the tree of the commit, packed as a module, has the sum
// which the checksum database has, and that the module proxy tells nothing else. It
// asks for everything anew. Errors are a [*MissingError], a [*Disagreement] or a
// [*modproxy.SumError] when the release is refused.
func (s *Source) Prove(ctx context.Context, t lock.Tailscale) error {
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer r.close()
	got, err := s.prove(ctx, &releases{repository: r}, t.Version)
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

// prove proves that a version is one source, and makes the lock's entry of it. The
// repository then has its objects, and those of the others.
func (s *Source) prove(ctx context.Context, r *releases, version string, others ...string) (lock.Tailscale, error) {
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
	if err := r.fetch(ctx, append(others, version)...); err != nil {
		return t, err
	}
	commit, err := r.commit(version)
	if err != nil {
		return t, err
	}
	t.Time = commit.Committer.When.UTC()
	if got := commit.Hash.String(); got != t.Commit {
		return t, &Disagreement{Version: version, What: "commit", Git: got, Other: t.Commit, OtherFrom: "the same repository's list of tags"}
	}
	got, err := s.sum(r.repository, version, commit)
	if err != nil {
		return t, fmt.Errorf("%s: git commit %s: %w", version, commit.Hash, err)
	}
	if got != t.Sum {
		return t, &modproxy.SumError{Module: releaseModule(version), Want: t.Sum, WantFrom: "checksum database",
			Got: got, GotFrom: "git commit " + t.Commit + " of " + s.Shown()}
	}
	if !t.Time.Equal(info.Time) {
		return t, disagreeOnTime(version, t.Time, info.Time, "module proxy")
	}
	return t, nil
}

// sum is the h1 hash of the module that a commit is. A tree from which git archive
// would make something else is refused: where a module proxy does not, it is not what
// a reader of the repository sees.
func (s *Source) sum(r *repository, version string, commit *object.Commit) (string, error) {
	files, err := r.files(commit, "")
	if err != nil {
		return "", err
	}
	var list []modzip.File
	for _, f := range files {
		if err := checkAttributes(f); err != nil {
			return "", err
		}
		list = append(list, moduleFile{f})
	}
	f, err := os.CreateTemp(s.Modules.Temp, "module-*.zip")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	err = errors.Join(modzip.Create(f, releaseModule(version), list), f.Close())
	if err != nil {
		return "", err
	}
	return dirhash.HashZip(f.Name(), dirhash.Hash1)
}

// applied are the attributes that make git archive leave files out or change them.
// Source: gitattributes(5).
var applied = []string{"export-ignore", "export-subst", "ident", "working-tree-encoding", "eol=crlf"}

// checkAttributes refuses a .gitattributes that applies one of them.
func checkAttributes(f *object.File) error {
	if path.Base(f.Name) != ".gitattributes" {
		return nil
	}
	text, err := f.Contents()
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		for _, word := range words[1:] {
			name, _, _ := strings.Cut(word, "=")
			if slices.Contains(applied, word) || slices.Contains(applied, name) {
				return fmt.Errorf("%s: %s: git archive would not leave the files as they are", f.Name, word)
			}
		}
	}
	return err
}

func disagreeOnTime(version string, git, other time.Time, from string) error {
	return &Disagreement{Version: version, What: "commit time", Git: git.Format(time.RFC3339), Other: other.Format(time.RFC3339), OtherFrom: from}
}
