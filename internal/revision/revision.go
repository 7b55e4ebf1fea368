// Package revision has the other revisions of this project's program: it finds the one that
// made an image, compiles it, and lets it build images.
//
// What a revision is comes from the checksum database: its source is a module, fetched and
// checked like every other, and its own go.sum pins what it needs. Which revision it is comes
// from the version of the image by way of a git tag; that is the module proxy's word, and the
// source must have the lock of that version. The program gets a lock, and no network, secret
// or cache of anybody else's: see [Revision.Build]. Nothing that it says is believed: it makes
// a layout, and whoever called it compares that.
package revision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/version"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

var (
	// ErrUnknown says that no revision of this project has a name.
	ErrUnknown = errors.New("is no release of this project")
	// ErrNoSource says that a folder has no source of this project.
	ErrNoSource = errors.New("is no checkout of this project")
)

// A Revision is the source of a program.
type Revision struct {
	// Tag is the git tag that an image's version names, and Version and Sum are those of the
	// module there. They are "" for a checkout.
	Tag     string `json:"tag,omitempty"`
	Version string `json:"version,omitempty"`
	Sum     string `json:"sum,omitempty"`
	// Checkout is the folder that somebody named.
	Checkout string `json:"checkout,omitempty"`
}

// String names it.
func (r Revision) String() string {
	if r.Checkout != "" {
		return "the program in " + r.Checkout
	}
	return fmt.Sprintf("%s@%s, git tag %s", derper.Module, r.Version, r.Tag)
}

// Mod is its module.
func (r Revision) Mod() module.Version {
	return module.Version{Path: derper.Module, Version: r.Version}
}

// Find finds the revision that made the image of a version. The error is [ErrUnknown] if there
// is none, as for the image of a fork.
func Find(ctx context.Context, modules *modproxy.Client, v lock.ImageVersion) (Revision, error) {
	r := Revision{Tag: v.String()}
	info, err := modules.Resolve(ctx, derper.Module, r.Tag)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a proxy that refuses says nothing of what there is
		return r, fmt.Errorf("%s %w: %w", r.Tag, ErrUnknown, err)
	case err != nil:
		return r, err
	case !module.IsPseudoVersion(info.Version): // a tag of this form gives nothing else
		return r, fmt.Errorf("%s %w: the module proxy answers with version %q", r.Tag, ErrUnknown, info.Version)
	case info.Origin != nil && info.Origin.Ref != "" && info.Origin.Ref != "refs/tags/"+r.Tag:
		return r, fmt.Errorf("%s %w: the module proxy has it from %q, which is not that tag", r.Tag, ErrUnknown, info.Origin.Ref)
	}
	r.Version = info.Version
	r.Sum, err = modules.Sum(ctx, r.Mod())
	return r, err
}

// Fetch puts the source into the folder dir, which must not exist yet: that of a release
// comes through the module proxy, that of a checkout is copied as a module of it would be.
func (r Revision) Fetch(ctx context.Context, modules *modproxy.Client, dir string) error {
	if r.Checkout == "" {
		return modules.Fetch(ctx, r.Mod(), r.Sum, dir, nil)
	}
	name := filepath.Join(r.Checkout, "go.mod")
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("%s %w: %w", r.Checkout, ErrNoSource, err)
	}
	if path := modfile.ModulePath(data); path != derper.Module {
		return fmt.Errorf("%s %w: its go.mod is of module %q, expected %s", r.Checkout, ErrNoSource, path, derper.Module)
	}
	var archive bytes.Buffer
	m := module.Version{Path: derper.Module, Version: "v0.0.0"} // any will do
	if err := zip.CreateFromDir(&archive, m, r.Checkout); err != nil {
		return fmt.Errorf("%s: %w", r.Checkout, err)
	}
	file := dir + ".zip"
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		return err
	}
	return errors.Join(zip.Unzip(dir, m, file), os.Remove(file))
}

// Lock is the lock that the source of a release has for its version. The error is [ErrUnknown]
// if it is no lock of that version.
func (r Revision) Lock(dir string) (*lock.Lock, error) {
	v, err := lock.ParseImageVersion(r.Tag)
	if err != nil {
		return nil, err
	}
	name := lock.ChannelOf(v.Tailscale).File()
	l, err := lock.Read(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("%s %w: %w", r.Tag, ErrUnknown, err)
	}
	if is := l.Inputs.ImageVersion(); is != v {
		return nil, fmt.Errorf("%s %w: its %s is of %s", r.Tag, ErrUnknown, name, is)
	}
	return l, nil
}

// Go is the Go that compiles the source in dir: the one that is at hand, unless the source
// asks for a newer one.
func (r Revision) Go(ctx context.Context, modules *modproxy.Client, dir string, have lock.Go, host string) (lock.Go, error) {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return have, err
	}
	mod, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return have, err
	}
	if mod.Go == nil || version.Compare("go"+mod.Go.Version, have.Version) <= 0 {
		return have, nil
	}
	newer := lock.Go{Version: "go" + mod.Go.Version}
	sum, err := modules.Sum(ctx, newer.Module(host))
	newer.Sums = map[string]string{host: sum}
	return newer, err
}
