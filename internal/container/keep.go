package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// keeper remembers the images that are kept, by digest, and where each is: a directory, or a tag.
type keeper struct {
	mu   sync.Mutex
	kept map[v1.Hash]*keptImage
}

type keptImage struct {
	where  string
	users  int // callers of Keep
	remove func() error
}

// keep has bring put an image where it is kept, unless it is there. In the end drop removes what is not in the state's
// directory.
func (k *keeper) keep(img v1.Image, bring func(*state) (where string, err error), drop func(where string) error) (release func() error, err error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("keep image: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.kept[digest]
	if e == nil {
		st, err := newState()
		if err != nil {
			return nil, fmt.Errorf("keep image: %w", err)
		}
		where, err := bring(st)
		e = &keptImage{where: where, remove: func() error { return errors.Join(drop(where), st.remove()) }}
		if err != nil {
			return nil, fmt.Errorf("keep image: %w", errors.Join(err, e.remove()))
		}
		k.kept[digest] = e
	}
	e.users++
	return sync.OnceValue(func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if e.users--; e.users > 0 {
			return nil
		}
		delete(k.kept, digest)
		return e.remove()
	}), nil
}

// where returns where the image is kept, "" if it is not.
func (k *keeper) where(img v1.Image) (string, error) {
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.kept[digest]; e != nil {
		return e.where, nil
	}
	return "", nil
}

// Native returns the runner that needs no daemon, but Linux. It uses a user namespace.
func Native() Runner { return native{} }

type native struct{}

func (native) String() string { return "native" }

// unpacked are the images that are kept, in directories.
var unpacked = keeper{kept: map[v1.Hash]*keptImage{}}

func (native) Keep(_ context.Context, img v1.Image) (release func() error, err error) {
	return unpacked.keep(img,
		func(st *state) (string, error) { return st.dir, st.unpack(img) },
		func(string) error { return nil })
}

// unpack writes the image to where the run keeps it.
func (s *state) unpack(img v1.Image) error {
	// The container's user has to get at the image, and nobody else past the directory above.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"rootfs", "run"} { // run is where containers mount
		if err := os.Mkdir(s.path(d), 0o755); err != nil {
			return err
		}
	}
	return unpack(img, s.path("rootfs"))
}

func (native) Sweep(context.Context) error { return sweepState() }
