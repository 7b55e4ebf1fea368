package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/retry"
)

// moving is the longest that the moving of tags, or their return, may take after the
// program has been told to stop.
const moving = 2 * time.Minute

// A move is a tag on its way to a release.
type move struct {
	repository *Repository
	tag        Tag
	from       *manifest // what it points at; nil for nothing
	to         *manifest
	// added is set when the release's index came to the repository in this run.
	added bool
	// tried is set from before the request that moves it.
	tried bool
	// unreadable is set when the registry has lost where it is, and from is nil for that.
	unreadable bool
}

func (m *move) done() bool { return m.from != nil && m.from.digest == m.to.digest }

func (m *move) String() string { return m.repository.String() + ":" + m.tag.Name }

// lookUp finds out where a tag is and whether it may move. What it points at is
// kept, so that the tag can be put back. Before it is known what the repository lacks, a
// registry may refuse to say: the repository may not exist. A tag that is to stay where it
// is gives nil.
func (r *target) lookUp(ctx context.Context, p Plan, img *Content, tag Tag) (*move, error) {
	to := r.all.manifest(img.Digest)
	m := &move{repository: r.Repository, tag: tag, to: to, added: r.lacks != nil && slices.Contains(r.lacks.manifests, to)}
	found, err := r.head(ctx, r.name.Tag(tag.Name))
	if m.unreadable = broken(err) && r.emptyLink(ctx, r.name.Tag(tag.Name)); m.unreadable || r.lacks == nil && forbidden(err) {
		return m, nil // a tag that nobody can read names nothing
	}
	if err != nil {
		return nil, err
	}
	if tag.Moves && p.From != nil && (found == nil || !slices.Contains(p.From, found.Digest) && found.Digest != to.digest) {
		return nil, nil
	}
	if found == nil {
		return m, nil
	}
	if found.Digest == to.digest {
		m.from = to
		return m, nil
	}
	refused := &TagError{Repository: r.String(), Tag: tag.Name, From: found.Digest.String(), To: to.digest.String(), Moves: tag.Moves}
	if !tag.Moves {
		return nil, refused
	}
	if m.from, err = r.read(ctx, r.digest(found.Digest)); err != nil {
		if NotFound(err) {
			err = nil // a tag without manifest is none
		}
		return m, err
	}
	if refused.Version = m.from.version(); newer(refused.Version, img.Version) && !p.Retag {
		return nil, refused
	}
	return m, nil
}

// read reads a manifest, by digest or tag.
func (r *Repository) read(ctx context.Context, ref name.Reference) (m *manifest, err error) {
	err = r.client.again(ctx, func() error {
		d, err := remote.Get(ref, r.options(ctx)...)
		if err == nil {
			m = &manifest{d.Manifest, d.MediaType, d.Digest}
		}
		return err
	})
	return m, err
}

// version is what a manifest says of which version it is, or "".
func (m *manifest) version() string {
	var some struct {
		Annotations map[string]string `json:"annotations"`
	}
	_ = json.Unmarshal(m.raw, &some) // an image of another kind says nothing
	return some.Annotations[image.LabelVersion]
}

// newer reports whether a is a newer version than b. What is no version is not.
func newer(a, b string) bool {
	v, aerr := lock.ParseImageVersion(a)
	w, berr := lock.ParseImageVersion(b)
	return aerr == nil && berr == nil && v.Compare(w) > 0
}

// settled is held for reading while tags move.
var settled sync.RWMutex

// Settle waits until this program moves no tags. A program that is told to stop calls it
// before it exits, so that tags are in one place or in the other.
func Settle() {
	settled.Lock()
	defer settled.Unlock()
}

// moveAll moves tags: those of the version first, which nobody uses yet and which
// show whether every registry takes tags; then those that move, all at once, so that
// the time between the first and the last is that of one request. What fails is put
// back.
//
// A signal does not end it half way; [Settle] waits for it.
func (c *Client) moveAll(ctx context.Context, moves []*move) error {
	settled.RLock()
	defer settled.RUnlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moving)
	defer cancel()
	for _, moving := range []bool{false, true} {
		err := stage(moves, moving, func(m *move) error {
			if m.done() {
				return nil
			}
			m.tried = true
			return c.failed(m.repository, "tag "+m.tag.Name, m.forward(ctx))
		})
		if err != nil {
			return putBack(ctx, moves, err)
		}
	}
	return nil
}

// stage calls f for the tags that move, or for the others, all at once, and returns all
// errors.
func stage(moves []*move, moving bool, f func(*move) error) error {
	errs := make([]error, len(moves))
	var wg sync.WaitGroup
	for i, m := range moves {
		if m.tag.Moves == moving {
			wg.Go(func() { errs[i] = f(m) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// forward moves the tag, and sees for itself. The registry has taken everything else
// from us: whatever it says now is worth another try.
func (m *move) forward(ctx context.Context) error {
	p := m.repository.client.Patience
	var last error
	err := retry.Policy{Attempts: min(p.Attempts, 3), Backoff: p.Backoff}.Do(ctx, func(bool) (bool, error) {
		last = m.set(ctx, m.to)
		return last != nil, last
	})
	return cmp.Or(last, err) // why it failed, and not that the wait was cut short
}

// set points the tag at a manifest.
func (m *move) set(ctx context.Context, to *manifest) error {
	refused := m.repository.put(ctx, m.repository.name.Tag(m.tag.Name), to)
	if refused != nil && (status(refused) < 400 || status(refused) >= 500) {
		return refused
	}
	// A registry whose tags are immutable refuses the second of two equal requests, and the
	// first is one whose answer was lost, or another program's.
	found, err := m.repository.head(ctx, m.repository.name.Tag(m.tag.Name))
	switch {
	case err == nil && found != nil && found.Digest == to.digest:
		return nil
	case refused != nil || err != nil:
		return cmp.Or(refused, err)
	}
	return fmt.Errorf("the registry took it and does not point it at %s", to.digest)
}

// A MoveError says that tags could not be moved, and where each is that was tried.
type MoveError struct {
	// Err is why.
	Err error
	// Back are the tags, as REPOSITORY:TAG, that were put back to where they were,
	// Moved those that are at the release, Unknown those of which nobody knows.
	Back, Moved, Unknown []string
}

func (e *MoveError) Error() string {
	s := strings.ReplaceAll(e.Err.Error(), "\n", "; ")
	for _, part := range []struct {
		what string
		tags []string
	}{{"where they were", e.Back}, {"at the new release", e.Moved}, {"not known where", e.Unknown}} {
		if len(part.tags) > 0 {
			s += fmt.Sprintf("; %s: %s", part.what, strings.Join(part.tags, ", "))
		}
	}
	return s
}

func (e *MoveError) Unwrap() error { return e.Err }

// putBack puts tags back to where they were, the moving ones first.
func putBack(ctx context.Context, moves []*move, cause error) error {
	e := &MoveError{Err: cause}
	var mu sync.Mutex
	for _, moving := range []bool{true, false} {
		_ = stage(moves, moving, func(m *move) error {
			if !m.tried {
				return nil
			}
			at, err := m.back(ctx)
			list := &e.Back
			switch {
			case err != nil:
				list = &e.Unknown
			case at:
				list = &e.Moved
			}
			mu.Lock()
			defer mu.Unlock()
			*list = append(*list, m.String())
			slices.Sort(*list)
			return nil
		})
	}
	return e
}

// back puts a tag back and reports whether it is at the release all the same.
func (m *move) back(ctx context.Context) (at bool, err error) {
	ref := m.repository.name.Tag(m.tag.Name)
	found, err := m.repository.head(ctx, ref)
	if err != nil && !broken(err) {
		return false, err
	}
	if err == nil && (found == nil || found.Digest != m.to.digest) {
		return false, nil // it never moved, or somebody else has moved it since
	}
	if m.from != nil {
		// Whatever this gives, what counts is where the tag is.
		_ = m.set(ctx, m.from)
	} else if m.added && !m.unreadable {
		// Registries that have no way to remove a tag refuse. Some of those that
		// remove its manifest along with it lose no more than this run has added.
		_ = remote.Delete(ref, m.repository.options(ctx)...)
	}
	if found, err = m.repository.head(ctx, ref); err != nil {
		return false, err
	}
	return found != nil && found.Digest == m.to.digest, nil
}
