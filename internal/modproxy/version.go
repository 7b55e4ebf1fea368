package modproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"

	"github.com/xavieralpha/derper/internal/limit"
)

// Info is what a proxy tells about a version.
// Source: https://go.dev/ref/mod#goproxy-protocol, cmd/go/internal/modfetch, RevInfo.
type Info struct {
	Version string
	// Time is the commit time.
	Time time.Time
	// Origin is where the proxy has the version from, nil if it does not say. It
	// is a hint: no checksum database vouches for it.
	Origin *Origin
}

// Origin is a place in a repository.
// Source: cmd/go/internal/modfetch/codehost, Origin.
type Origin struct {
	VCS  string
	URL  string
	Ref  string
	Hash string
}

// NotServed reports whether an error says that a proxy does not have a version, or
// does not give it away: 404 or 410, 401, 403 or 451. To ask again is of no use
// then, and the proxy is not at fault.
func NotServed(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// refused is an answer that a proxy denies to everybody or to us.
type refused struct{ error }

func (refused) Is(target error) bool { return target == fs.ErrPermission }

// Versions are the versions that a proxy lists for the module at path, in semver's
// order. A proxy may know of others: the list is one of releases that it has seen.
func (c *Client) Versions(ctx context.Context, path string) ([]string, error) {
	data, err := c.metadata(ctx, module.Version{Path: path}, "/@v/list")
	if err != nil {
		return nil, fmt.Errorf("versions of %s: %w", path, err)
	}
	var versions []string
	for _, line := range strings.Split(string(data), "\n") {
		// Some proxies put the time behind the version.
		if f := strings.Fields(line); len(f) > 0 && module.Check(path, f[0]) == nil {
			versions = append(versions, f[0])
		}
	}
	semver.Sort(versions)
	return slices.Compact(versions), nil
}

// Latest is the version that a proxy takes for the module's newest when it lists
// none: in modules without releases, one of the newest commit.
func (c *Client) Latest(ctx context.Context, path string) (*Info, error) {
	info, err := c.info(ctx, module.Version{Path: path}, "/@latest")
	if err == nil {
		err = module.Check(path, info.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("latest version of %s: %w", path, err)
	}
	return info, nil
}

// Info asks for a version. A proxy that has not seen it yet looks for it where the
// module is at home.
func (c *Client) Info(ctx context.Context, m module.Version) (*Info, error) {
	info, err := c.info(ctx, m, ".info")
	if err == nil && info.Version != m.Version {
		err = fmt.Errorf("the proxy answers with version %q", info.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("info of %s: %w", m, err)
	}
	return info, nil
}

// Serves asks whether a proxy gives out the zip of a version, and leaves it there. The error is
// nil if it does; [NotServed] tells whether it was its answer.
func (c *Client) Serves(ctx context.Context, m module.Version) error {
	if err := c.read(ctx, m, ".zip", func(*body) error { return nil }); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	return nil
}

// Resolve asks which version a name has, as a tag or a branch of the module's repository. It is
// the proxy's word: what the checksum database knows is what that version is, not which one a
// name means.
func (c *Client) Resolve(ctx context.Context, path, name string) (*Info, error) {
	info, err := c.info(ctx, module.Version{Path: path, Version: name}, ".info")
	if err == nil {
		err = module.Check(path, info.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("info of %s@%s: %w", path, name, err)
	}
	return info, nil
}

// GoMod fetches a version's go.mod. It must be the one that the checksum database
// knows, else the error is a [*SumError].
func (c *Client) GoMod(ctx context.Context, m module.Version) ([]byte, error) {
	data, err := c.metadata(ctx, m, ".mod")
	if err != nil {
		return nil, fmt.Errorf("go.mod of %s: %w", m, err)
	}
	file := module.Version{Path: m.Path, Version: m.Version + "/go.mod"}
	want, err := c.Sum(ctx, file)
	if err != nil {
		return nil, err
	}
	got, err := hashGoMod(data)
	if err != nil {
		return nil, fmt.Errorf("go.mod of %s: %w", m, err)
	}
	if got != want {
		return nil, &SumError{Module: file, Want: want, WantFrom: "checksum database", Got: got, GotFrom: "module proxy"}
	}
	return data, nil
}

// hashGoMod is the sum of a go.mod.
func hashGoMod(data []byte) (string, error) {
	return dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

func (c *Client) info(ctx context.Context, m module.Version, suffix string) (*Info, error) {
	data, err := c.metadata(ctx, m, suffix)
	if err != nil {
		return nil, err
	}
	info := new(Info)
	if err := json.Unmarshal(data, info); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	info.Time = info.Time.UTC()
	return info, nil
}

// maxMetadata bounds an answer that is no zip, in bytes. It is the limit of a go.mod.
// Source: golang.org/x/mod/zip, MaxGoMod.
const maxMetadata = 16 << 20

// metadata reads one of the small files that a proxy has for a module or a version.
func (c *Client) metadata(ctx context.Context, m module.Version, suffix string) (data []byte, err error) {
	err = c.read(ctx, m, suffix, func(b *body) (err error) {
		if data, err = limit.ReadAll(b, maxMetadata); errors.Is(err, limit.Err) {
			err = fmt.Errorf("%s: %w", b.from, err)
		}
		return err
	})
	return data, err
}
