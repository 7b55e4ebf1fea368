package upstream

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/xavieralpha/derper/internal/features"
	"github.com/xavieralpha/derper/internal/lock"
)

// A FeatureChange is a change in the features that a program can be built without.
type FeatureChange struct {
	// Program is the one whose build tags change, or are to be changed by hand.
	Program string `json:"program"`
	Feature string `json:"feature"`
	// Change is new, removed, required (by a feature that the program keeps) or unrequired.
	Change string `json:"change"`
	// About is upstream's description of a new feature.
	About string `json:"about,omitempty"`
	// Listed is whether the lock lists the feature.
	Listed bool `json:"listed,omitempty"`
	// By are the features that require it, if the program keeps it for them.
	By []string `json:"requiredBy,omitempty"`
}

// String says what changed, and what becomes of the program.
func (c FeatureChange) String() string {
	by := strings.Join(c.By, ", ")
	switch {
	case c.Change == "new" && c.Listed:
		return fmt.Sprintf("%s is new (%s): %s keeps it", c.Feature, c.About, c.Program)
	case c.Change == "new" && by != "":
		return fmt.Sprintf("%s is new (%s): %s keeps it, %s requires it", c.Feature, c.About, c.Program, by)
	case c.Change == "new":
		return fmt.Sprintf("%s is new (%s): left out of %s", c.Feature, c.About, c.Program)
	case c.Change == "removed" && c.Listed:
		return fmt.Sprintf("%s, which %s keeps, is not a feature of this release: change features in inputs.programs", c.Feature, c.Program)
	case c.Change == "removed":
		return fmt.Sprintf("%s is gone, and its build tag: what was left out of %s with it may be in it", c.Feature, c.Program)
	case c.Change == "required":
		return fmt.Sprintf("%s is in %s from now on: %s requires it", c.Feature, c.Program, by)
	}
	return fmt.Sprintf("%s is left out of %s from now on: nothing that it keeps requires it", c.Feature, c.Program)
}

// features are those of a release, in the source of its commit. A release from before
// upstream had a list of them has none.
func (r *repository) features(version string) (features.Table, error) {
	commit, err := r.commit(version)
	if err != nil {
		return nil, err
	}
	files, err := r.files(commit, path.Dir(features.File))
	if errors.Is(err, object.ErrDirectoryNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(files, func(f *object.File) bool { return f.Name == path.Base(features.File) })
	if i < 0 {
		return nil, nil
	}
	source, err := files[i].Contents()
	if err != nil {
		return nil, err
	}
	table, err := features.Parse([]byte(source))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", version, err)
	}
	return table, nil
}

// chooseTags sets the build tags of the programs that keep only some features, and lists
// what changed since a release; that one is "" if its source is not at hand.
func (u *Update) chooseTags(r *repository, old, version string) (err error) {
	if !slices.ContainsFunc(u.New.Programs, func(p lock.Program) bool { return len(p.Features)+len(p.Tags) > 0 }) {
		return nil
	}
	var before features.Table
	if old != "" {
		if before, err = r.features(old); err != nil {
			return err
		}
	}
	now, err := r.features(version)
	if err != nil {
		return err
	}
	u.New.Programs = slices.Clone(u.New.Programs)
	for i := range u.New.Programs {
		p := &u.New.Programs[i]
		if now == nil && p.Features != nil {
			return fmt.Errorf("%s: its source has no %s, which says how to build %s with some features only: remove features and buildTags of %s from inputs.programs", version, features.File, p.Name(), p.Name())
		}
		u.Features = append(u.Features, featureChanges(*p, before, now)...)
		if p.Features != nil {
			p.Tags = now.Tags(p.Features)
		}
	}
	return nil
}

// featureChanges are those that concern a program, by feature. Without a table from before
// they are those that the program's own features and tags show.
func featureChanges(p lock.Program, before, now features.Table) (list []FeatureChange) {
	kept, unknown := now.Keep(p.Features)
	had, _ := before.Keep(p.Features)
	for _, tag := range now.Unknown(p.Tags) {
		unknown = append(unknown, features.Of(tag))
	}
	names := slices.Concat(slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(now)), unknown)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		c := FeatureChange{Program: p.Name(), Feature: name, Listed: slices.Contains(p.Features, name)}
		_, was := before[name]
		_, is := now[name]
		switch {
		case c.Listed && !was && !is && (before != nil || slices.ContainsFunc(lock.Kept, func(f lock.Feature) bool { return f.Name == name })):
			continue // what only later releases have
		case slices.Contains(unknown, name):
			c.Change = "removed"
		case p.Features == nil || before == nil || !is || kept[name] == had[name] && was:
			continue
		case !was:
			c.Change, c.About = "new", now[name].About
		case kept[name]:
			c.Change = "required"
		default:
			c.Change = "unrequired"
		}
		if kept[name] {
			c.By = now.Required(name, kept)
		}
		list = append(list, c)
	}
	return list
}
