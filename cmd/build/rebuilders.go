package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/verify"
)

// openRebuilders is whom the flags trust to have rebuilt an image, each once.
func (e *env) openRebuilders(ctx context.Context, o *verifyOptions) (r verify.Rebuilders, err error) {
	if o.rebuilderFolder != "" {
		if r, err = e.knownRebuilders(ctx, o.rebuilderFolder); err != nil {
			return r, fmt.Errorf("verify: --rebuilders %w", err)
		}
	}
	for _, word := range o.rebuilders {
		t := trustFlags{key: word}
		if identity, rest, ok := strings.Cut(word, ","); ok && !registry.IsPath(word) {
			issuer, repository, _ := strings.Cut(rest, ",")
			t = trustFlags{identity: identity, issuer: issuer, repository: repository}
		}
		trust, err := e.openTrust(ctx, t)
		if err != nil {
			return r, fmt.Errorf("verify: --rebuilder %s: %w", word, err)
		}
		if err := addRebuilder(&r, verify.Rebuilder{Trust: trust}); err != nil {
			return r, cli.Usage("--rebuilder %s: %w", word, err)
		}
	}
	if r.Require = o.require; r.Require > len(r.Trust) {
		return r, cli.Usage("--require %d: rebuilders that are named: %d", r.Require, len(r.Trust))
	}
	return r, nil
}

// knownRebuilders are those of a folder.
func (e *env) knownRebuilders(ctx context.Context, dir string) (r verify.Rebuilders, err error) {
	known, err := verify.ReadKnown(dir)
	if err != nil {
		return r, err
	}
	for _, k := range known {
		by := verify.Rebuilder{Name: k.Name, Repository: k.Repository}
		if k.Key != "" {
			by.Trust, err = trustPEM([]byte(k.Key))
		} else {
			by.Trust, err = e.openTrust(ctx, trustFlags{identity: k.Identity, issuer: k.Issuer, repository: k.SignerRepository})
		}
		if err == nil {
			err = addRebuilder(&r, by)
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", filepath.Join(dir, k.Name+".json"), err)
		}
	}
	return r, nil
}

// addRebuilder adds a rebuilder who is not among them.
func addRebuilder(r *verify.Rebuilders, by verify.Rebuilder) error {
	for _, other := range r.Trust {
		if other.Overlaps(by.Trust) {
			return fmt.Errorf("is named twice: %s", other)
		}
	}
	r.Trust = append(r.Trust, by)
	return nil
}

// placesOf are the repositories that attestations are read from or written to, but for the
// images' own.
func placesOf(r verify.Rebuilders, to string) (places []string) {
	for _, by := range r.Trust {
		places = append(places, by.Repository)
	}
	return slices.DeleteFunc(append(places, to), func(place string) bool { return place == "" })
}

// confirmed is who of the rebuilders known beside the lock attests an image, for the notes of
// a release, and of how many.
func (o *releaseOptions) confirmed(ctx context.Context, ref string, platforms []lock.Platform) (names []string, known int, err error) {
	dir := filepath.Join(filepath.Dir(o.LockFile), verify.KnownFolder)
	r, err := o.knownRebuilders(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil // no checkout, or nobody yet
	}
	if err != nil || len(r.Trust) == 0 {
		return nil, 0, err
	}
	keychain, err := o.credentials(append(placesOf(r, ""), o.Repositories...))
	if err != nil {
		return nil, 0, err
	}
	names, err = r.Confirmed(ctx, &registry.Client{Keychain: keychain}, ref, platforms)
	return names, len(r.Trust), err
}
