package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// record makes the notes of what the first repository has, and writes the release down.
func (r *Release) record(ctx context.Context, l *lock.Lock, _ []Part) error {
	n := &Notes{Repositories: r.Repositories, Changes: r.journal.entries["update"].Changes}
	before := r.before(l)
	for _, v := range l.Inputs.Variants {
		image, err := r.describe(ctx, l.Outputs[v.Name].Index)
		if err != nil {
			return err
		}
		note := Variant{Name: v.Name, Image: image}
		for _, t := range tagsOf(l.Inputs.ImageVersion(), v) {
			note.Tags = append(note.Tags, t.Name)
		}
		if digest := before[v.Name]; digest != "" {
			if note.Before, err = r.describe(ctx, digest); err != nil {
				r.say("%s@%s cannot be described, and the notes compare with nothing: %v", r.Repositories[0], digest, err)
				note.Before = nil
			}
		}
		n.Variants = append(n.Variants, note)
	}
	r.confirmed(ctx, l, n)
	var err error
	if n.Known, err = r.known(l); err != nil {
		return err
	}
	command := r.journal.entries["sign"].Command
	if r.Signer != nil {
		command = r.Signer.Command()
	}
	if command != "" {
		for _, ref := range r.references(l, l.Inputs.VariantNames()...) {
			n.Verify = append(n.Verify, command+" "+ref)
		}
	}
	var b bytes.Buffer
	if err := n.Write(&b); err != nil {
		return err
	}
	if err := atomicfile.Write(r.path(notesName), b.Bytes()); err != nil {
		return err
	}
	pages, err := r.pages(ctx, l)
	if err != nil {
		return err
	}
	l.Published = &lock.Published{Revision: l.Inputs.Revision, Index: l.Indexes()}
	return r.Recorder.Record(ctx, l, pages, b.String())
}

// confirmed looks which rebuilders attest the images. A release does not wait for any, nor
// fail for want of their word.
func (r *Release) confirmed(ctx context.Context, l *lock.Lock, n *Notes) {
	if r.Tools.Confirmed == nil {
		return
	}
	n.Confirmed = map[string][]string{}
	for _, v := range n.Variants {
		names, known, err := r.Tools.Confirmed(ctx, r.Repositories[0]+"@"+v.Image.Digest, l.Inputs.Platforms)
		if err != nil {
			r.say("the notes name no rebuilders: %v", err)
			n.Rebuilders, n.Confirmed = 0, nil
			return
		}
		n.Rebuilders, n.Confirmed[v.Name] = known, names
	}
}

// pages are the pages of the repository that are about the newest stable release.
func (r *Release) pages(ctx context.Context, l *lock.Lock) (map[string][]byte, error) {
	if lock.ChannelOf(l.Inputs.Tailscale.Version) != lock.Stable {
		return nil, nil
	}
	repository, err := r.Registry.Open(ctx, r.Repositories[0], registry.Pull)
	if err != nil {
		return nil, err
	}
	digest, err := v1.NewHash(l.Output().Platforms[0].Manifest)
	if err != nil {
		return nil, err
	}
	img, err := image.ImageOf(ctx, repository, v1.Descriptor{Digest: digest, MediaType: types.OCIManifestSchema1})
	if err != nil {
		return nil, err
	}
	list, err := flags.Of(ctx, img)
	if errors.Is(err, flags.ErrNone) {
		return nil, nil // an image without derper
	}
	return map[string][]byte{flags.PageFile: flags.Page(list)}, err
}

// before are the digests of what was released before, by variant: what the tag that always
// moves named, or, where no journal has that, what the lock that is replaced records.
func (r *Release) before(l *lock.Lock) Digests {
	before := Digests{}
	if old, err := lock.Read(r.LockFile); err == nil {
		maps.Copy(before, digestsOf(old))
	}
	if r.journal.covers("before", Part{}, digestsOf(l), nil) {
		for variant, digest := range r.journal.entries["before"].Before {
			if digest != l.Indexes()[variant] {
				before[variant] = digest
			}
		}
	}
	maps.DeleteFunc(before, func(variant, digest string) bool { return digest == l.Indexes()[variant] })
	return before
}

// describe describes what the first repository has under a digest.
func (r *Release) describe(ctx context.Context, digest string) (*Image, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return nil, err
	}
	repository, err := r.Registry.Open(ctx, r.Repositories[0], registry.Pull)
	if err != nil {
		return nil, err
	}
	index, err := image.IndexOf(ctx, repository, v1.Descriptor{Digest: h, MediaType: types.OCIImageIndex})
	if err != nil {
		return nil, err
	}
	return Describe(index)
}

// A LocalRecorder writes a release down on this machine: the lock is replaced, and
// the notes stay in the release's folder.
type LocalRecorder struct{ *Release }

// Recorded reports whether the lock has the image as published, and the folder its notes.
func (f LocalRecorder) Recorded(_ context.Context, l *lock.Lock) (bool, error) {
	there, err := lock.Read(f.LockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the first release of a channel
	}
	if err != nil {
		return false, err
	}
	_, noNotes := os.Stat(f.path(notesName))
	return noNotes == nil && f.journal.covers("record", Part{}, digestsOf(l), f.Repositories) && there.Published != nil && maps.Equal(there.Published.Index, l.Indexes()), nil
}

// Record replaces the lock, unless somebody else changed it since the release began, and the
// pages that are beside it.
func (f LocalRecorder) Record(_ context.Context, l *lock.Lock, pages map[string][]byte, _ string) error {
	have, next, err := contents(f.LockFile, l)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, next) {
		if f.journal.entries["update"].Base != digestOf(have) {
			return fmt.Errorf("%s: %w", f.LockFile, github.ErrChanged)
		}
		if err := l.Write(f.LockFile); err != nil {
			return err
		}
	}
	for path, content := range pages {
		name := filepath.Join(filepath.Dir(f.LockFile), filepath.FromSlash(path))
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue // no checkout
		}
		if err := atomicfile.Write(name, content); err != nil {
			return err
		}
	}
	return nil
}

// Withdraw writes the lock in which the version is marked.
func (f LocalRecorder) Withdraw(_ context.Context, l *lock.Lock, _ string, _ []string) error {
	return l.Write(f.LockFile)
}

// A GitHubRecorder writes a release down on GitHub: a commit of the lock, then a
// release whose notes name the index, with its files.
type GitHubRecorder struct {
	*github.Client
	// LockFile is the lock of the checkout, as a path in the repository; Branch is
	// the branch to commit to, and Built the commit that was built.
	LockFile, Branch, Built string
	// Folder is the folder of the release, with the files to keep with it.
	Folder string
}

// Recorded reports whether there is a release of the image's version that names its
// index.
func (g GitHubRecorder) Recorded(ctx context.Context, l *lock.Lock) (bool, error) {
	return g.Released(ctx, l.Inputs.Version(), l.Output().Index)
}

// Record commits the lock, unless somebody else changed it since the checkout, and the pages,
// and makes the release at the commit. Its parent is the commit that was built: so
// the release's git tag leads to the source of what made the image.
func (g GitHubRecorder) Record(ctx context.Context, l *lock.Lock, pages map[string][]byte, notes string) error {
	version := l.Inputs.ImageVersion()
	commit, err := g.commit(ctx, l, g.Built, pages, fmt.Sprintf("lock: tailscale %s\n\n%s", version, l.Output().Index))
	if err != nil {
		return err
	}
	assets, err := Assets(g.Folder, l)
	if err != nil {
		return err
	}
	_, err = g.Release(ctx, github.ReleaseNotes{
		Tag: version.String(), Commit: commit, Notes: notes, Index: l.Output().Index, Prerelease: lock.ChannelOf(version.Tailscale) == lock.Unstable,
		Assets: assets,
	})
	return err
}

func (g GitHubRecorder) commit(ctx context.Context, l *lock.Lock, parent string, pages map[string][]byte, message string) (string, error) {
	old, next, err := contents(g.LockFile, l)
	if err != nil {
		return "", err
	}
	change := github.Change{
		Branch: g.Branch, Parent: parent, Message: message,
		Files: []github.File{{Path: filepath.ToSlash(filepath.Clean(g.LockFile)), Old: old, New: next}},
	}
	for path, content := range pages {
		change.Files = append(change.Files, github.File{Path: path, New: content, Replace: true})
	}
	return g.Commit(ctx, change)
}

// contents are what a lock's file has now, nil for no file, and what it is to have.
func contents(file string, l *lock.Lock) (have, next []byte, err error) {
	if next, err = l.Bytes(); err != nil {
		return nil, nil, err
	}
	if have, err = os.ReadFile(file); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return have, next, err
}

// Withdraw commits the lock in which the version is marked, and marks the releases.
func (g GitHubRecorder) Withdraw(ctx context.Context, l *lock.Lock, version string, tags []string) error {
	if _, err := g.commit(ctx, l, "", nil, "lock: tailscale "+version+" is withdrawn"); err != nil {
		return err
	}
	for _, tag := range tags {
		if v, err := lock.ParseImageVersion(tag); err == nil && v.Revision == 0 {
			tags = append(tags, v.Tailscale) // from before there were revisions
		}
	}
	for _, tag := range tags {
		if err := g.Client.Withdraw(ctx, tag, "**Withdrawn.** The tags name the image before; this one is not published again."); err != nil {
			return err
		}
	}
	return nil
}
