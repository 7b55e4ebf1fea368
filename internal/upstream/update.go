package upstream

import (
	"context"
	"fmt"
	"go/version"
	"reflect"
	"slices"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
)

// A Wish says which release a lock is to have.
type Wish struct {
	// Channel is that of which the newest release is taken.
	Channel lock.Channel
	// Version, if not empty, is taken instead, older than the lock's or not.
	Version string
	// Downgrade allows the newest release to be older than the lock's.
	Downgrade bool
}

// An Update is what becomes of a lock's inputs.
type Update struct {
	// Old and New are the inputs before and after, equal when nothing is new.
	Old, New lock.Inputs
	// Pending are newer CA roots that wait: those of the lock are not old enough for a
	// revision of their own. To wish for the lock's own version takes them.
	Pending []Change
	// Flags are what changed in derper's command line.
	Flags []flags.Change
	// Features are what changed in the features that programs are built without.
	Features []FeatureChange
}

// IsNew reports whether there is something new.
func (u *Update) IsNew() bool { return !reflect.DeepEqual(u.Old, u.New) }

// Changes are the inputs that changed.
func (u *Update) Changes() []Change { return changes(u.Old, u.New) }

// A Change is an input that changed.
type Change struct {
	Input string `json:"input"`
	Old   string `json:"old"`
	New   string `json:"new"`
}

func changes(from, to lock.Inputs) (list []Change) {
	for _, c := range []Change{
		{"tailscale", from.Tailscale.Version, to.Tailscale.Version},
		{"commit", from.Tailscale.Commit, to.Tailscale.Commit},
		{"go", from.Go.Version, to.Go.Version},
		{"roots", from.Roots.Version, to.Roots.Version},
		{"image format", fmt.Sprint(from.Format), fmt.Sprint(to.Format)},
	} {
		if c.Old == "0" {
			c.Old = "" // of a new lock
		}
		if c.Old != c.New {
			list = append(list, c)
		}
	}
	for i, p := range to.Programs { // an update leaves them in their places
		if i < len(from.Programs) && !slices.Equal(from.Programs[i].Tags, p.Tags) {
			list = append(list, Change{"build tags of " + p.Name(), counted(from.Programs[i].Tags, nil), counted(p.Tags, from.Programs[i].Tags)})
		}
	}
	return list
}

// counted says how many build tags there are, and how they differ from others.
func counted(tags, from []string) string {
	if len(tags) == 0 {
		return ""
	}
	s := fmt.Sprint(len(tags))
	if len(from) > 0 {
		for _, tag := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(tags, from)))) {
			switch {
			case !slices.Contains(from, tag):
				s += " +" + tag
			case !slices.Contains(tags, tag):
				s += " -" + tag
			}
		}
	}
	return s
}

// Lock is the lock that follows on l, which the update was made for: without outputs. What
// was published of the same release stays in it, so that its next image gets another
// revision.
func (u *Update) Lock(l *lock.Lock) *lock.Lock {
	next := &lock.Lock{Schema: l.Schema, Inputs: u.New, Withdrawn: l.Withdrawn}
	if u.New.Tailscale.Version == u.Old.Tailscale.Version {
		next.Published = l.Published
	}
	return next
}

// Update finds out what a lock's inputs are to become; those of a new lock are its
// platforms only. Nothing is returned that is
// not proven. Errors are a [*DowngradeError], an [*UnservedError], those of [Source.Prove], and
// [ErrRepository] or [modproxy.ErrUnreachable] when a source gives no answer.
func (s *Source) Update(ctx context.Context, have lock.Inputs, w Wish) (*Update, error) {
	r, err := s.find(ctx, w.Channel)
	if err != nil {
		return nil, err
	}
	defer r.close()
	locked := have.Tailscale.Version
	version, err := r.choose(locked, w)
	if err != nil {
		return nil, err
	}
	if w.Version == "" && locked != "" {
		s.compare(r, w.Channel, locked, version)
	}
	if r.isRetracted(version) {
		s.Warn("%s: upstream has retracted it", version)
	}
	if version == locked && w.Version == "" {
		return s.same(ctx, r, have)
	}
	var old []string
	if locked != "" && version != locked && r.tags[locked] == have.Tailscale.Commit {
		old = []string{locked}
	}
	proven, err := s.prove(ctx, r, version, old...)
	if err != nil {
		return nil, err
	}
	u := &Update{Old: have}
	if u.New, err = s.companions(ctx, r, version, have); err != nil {
		return nil, err
	}
	if version != locked {
		if err := s.buildList(ctx, version); err != nil {
			return nil, err
		}
	}
	u.New.Tailscale, u.New.Format = proven, lock.Format
	if version != locked {
		u.New.Revision = 0
	}
	before := "" // a release to compare with
	switch {
	case version == locked:
		err = agree(proven, have.Tailscale)
	case old != nil:
		before = locked
		// Whatever the source says of flags, the release is what it is.
		var unread error
		if u.Flags, unread = r.flagChanges(locked, version); unread != nil {
			s.Warn("what changed is not known: %v", unread)
		}
	case locked != "":
		s.Warn("%s: the git repository has no tag of this name at commit %s: derper's flags are not compared, nor are upstream's features", locked, have.Tailscale.Commit)
	}
	if err == nil {
		err = u.chooseTags(r.repository, before, version)
	}
	if err != nil {
		return nil, err
	}
	return u, nil
}

// choose chooses the version that a lock is to have.
func (r *releases) choose(locked string, w Wish) (string, error) {
	if w.Version != "" {
		if !isRelease(w.Version) {
			return "", fmt.Errorf("%q is no release such as v1.102.3", w.Version)
		}
		return w.Version, nil
	}
	v := r.newest(w.Channel)
	if v == "" {
		return "", fmt.Errorf("neither the module proxy nor the git repository has a %s release", w.Channel)
	}
	if semver.Compare(v, locked) < 0 && !w.Downgrade {
		return "", &DowngradeError{Locked: locked, Newest: v, Channel: w.Channel, Retracted: r.isRetracted(locked)}
	}
	return v, nil
}

// same is the update to the release that the lock has already: a newer patch of its Go, and
// newer CA roots with it, or alone when those of the lock are [rootsAge] old. Its tag must be
// where it was. Nothing becomes older.
func (s *Source) same(ctx context.Context, r *releases, have lock.Inputs) (*Update, error) {
	t := have.Tailscale
	switch commit, tagged := r.tags[t.Version]; {
	case !tagged:
		return nil, &MissingError{Version: t.Version, Has: "module proxy", Lacks: "git repository " + s.Shown()}
	case commit != t.Commit:
		return nil, &Disagreement{Version: t.Version, What: "commit", Git: commit, Other: t.Commit, OtherFrom: "lock"}
	}
	newer, err := s.companions(ctx, r, t.Version, have)
	if err != nil {
		return nil, err
	}
	next := have
	if version.Compare(newer.Go.Version, have.Go.Version) > 0 {
		next.Go = newer.Go // each patch may heal something
	}
	newer.Go = next.Go
	if newer.Roots != have.Roots {
		dated, err := s.dated(ctx, have.Roots)
		if err != nil {
			return nil, err
		}
		if next.Go.Version != have.Go.Version || !s.now().Before(dated.Add(rootsAge)) {
			next.Roots = newer.Roots
		}
	}
	return &Update{Old: have, New: next, Pending: changes(next, newer)}, nil
}

// rootsAge is how old CA roots get before newer ones are worth a revision: they change every
// few weeks, and few of these changes matter within a month.
const rootsAge = 30 * 24 * time.Hour

// dated is when a version of the CA roots was made.
func (s *Source) dated(ctx context.Context, roots lock.Module) (time.Time, error) {
	if module.IsPseudoVersion(roots.Version) {
		return module.PseudoVersionTime(roots.Version)
	}
	info, err := s.Modules.Info(ctx, module.Version{Path: lock.RootsModule, Version: roots.Version})
	if err != nil {
		return time.Time{}, err
	}
	return info.Time, nil
}

// now is the day that the age of CA roots counts from.
func (s *Source) now() time.Time {
	if s.Now.IsZero() {
		return time.Now()
	}
	return s.Now
}
