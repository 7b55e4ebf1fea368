package upstream

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// Limits to what a repository may send and to the tree of a commit, many times what
// upstream has.
const (
	maxRefs  = 64 << 20  // bytes of the list of references
	maxPack  = 256 << 20 // bytes of the objects of some tags
	maxTree  = 1 << 30   // bytes of the files of a commit
	maxFiles = 1 << 20   // files and folders
	maxPath  = 4 << 10   // bytes of a file's name
)

// A repository is upstream's git repository. It uses no git program, none of the
// user's git settings, and no credentials but those in its URL.
type repository struct {
	tags map[string]string        // the releases, with their commits
	refs map[string]plumbing.Hash // what their tags name: commits or annotated tags
	// objects has those of a folder, or what was fetched from a URL.
	objects storer.EncodedObjectStorer
	// fetch makes objects have what tags name.
	fetch func(ctx context.Context, versions ...string) error
	temp  string // folder of what was fetched
}

// open reads the tags of the repository. What it returns is never nil, and must be
// closed.
func (s *Source) open(ctx context.Context) (r *repository, err error) {
	r = &repository{tags: map[string]string{}, refs: map[string]plumbing.Hash{}, fetch: func(context.Context, ...string) error { return nil }}
	u, err := url.Parse(s.Repository)
	switch scheme, _, isURL := strings.Cut(s.Repository, "://"); {
	case !isURL:
		err = r.openFolder(s.Repository)
	case err != nil:
	case scheme == "file":
		err = r.openFolder(filepath.FromSlash(u.Path))
	case scheme == "http" || scheme == "https":
		err = r.openURL(ctx, s)
	default:
		err = errors.New("neither a folder nor a file://, http:// or https:// URL")
	}
	return r, s.unreachable(ctx, err)
}

func (r *repository) close() { _ = os.RemoveAll(r.temp) }

// openFolder opens a repository on this machine. go-git's own transport for it would
// run git.
func (r *repository) openFolder(dir string) error {
	g, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return err
	}
	r.objects = checked{g.Storer}
	tags, err := g.Tags()
	if err != nil {
		return err
	}
	return tags.ForEach(func(ref *plumbing.Reference) error {
		version := ref.Name().Short()
		if !isRelease(version) {
			return nil
		}
		commit, err := r.peel(ref.Hash())
		r.refs[version], r.tags[version] = ref.Hash(), commit.String()
		return err
	})
}

// openURL opens a repository on a server.
func (r *repository) openURL(ctx context.Context, s *Source) error {
	endpoint, err := transport.NewEndpoint(s.Repository)
	if err != nil {
		return err
	}
	// As git does, it follows redirects of the first request only, and to http and
	// https only; and never from https to http.
	client := githttp.NewClient(&http.Client{Transport: limiter{s.Modules}})
	session, err := client.NewUploadPackSession(endpoint, nil)
	if err != nil {
		return err
	}
	list, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return err
	}
	for name, hash := range list.References {
		if version, ok := strings.CutPrefix(name, "refs/tags/"); ok && isRelease(version) {
			r.refs[version], r.tags[version] = hash, hash.String()
			if commit, ok := list.Peeled[name]; ok {
				r.tags[version] = commit.String()
			}
		}
	}
	r.fetch = func(ctx context.Context, versions ...string) error {
		if r.temp, err = os.MkdirTemp(s.Modules.Temp, "git-"); err != nil {
			return err
		}
		store := filesystem.NewStorage(osfs.New(r.temp), cache.NewObjectLRUDefault())
		r.objects = checked{store}
		var wants []plumbing.Hash
		for _, v := range versions {
			wants = append(wants, r.refs[v])
		}
		return s.unreachable(ctx, download(ctx, session, list.Capabilities, wants, store))
	}
	return nil
}

// download gets objects, and what they are made of, but not the commits before them
// if the server can leave those out.
func download(ctx context.Context, session transport.UploadPackSession, can *capability.List, wants []plumbing.Hash, to storer.Storer) error {
	req := packp.NewUploadPackRequestFromCapabilities(can)
	req.Wants = wants
	if can.Supports(capability.NoProgress) {
		_ = req.Capabilities.Set(capability.NoProgress) // fails for others only
	}
	if can.Supports(capability.Shallow) {
		_ = req.Capabilities.Set(capability.Shallow)
		req.Depth = packp.DepthCommits(1)
	}
	resp, err := session.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer resp.Close()
	pack := io.Reader(resp)
	if req.Capabilities.Supports(capability.Sideband64k) {
		pack = sideband.NewDemuxer(sideband.Sideband64k, resp)
	} else if req.Capabilities.Supports(capability.Sideband) {
		pack = sideband.NewDemuxer(sideband.Sideband, resp)
	}
	return packfile.UpdateObjectStorage(to, pack)
}

// unreachable makes an error of a repository that gives no answer one that says so.
func (s *Source) unreachable(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s: git: %w", ErrRepository, s.Shown(), modproxy.WithoutURL(err))
}

// Shown is the repository as it may be printed: without a password in its URL.
func (s *Source) Shown() string {
	u, err := url.Parse(s.Repository)
	switch {
	case err != nil:
		return s.Repository[strings.LastIndex(s.Repository, "@")+1:]
	case u.User != nil:
		return u.Redacted()
	}
	return s.Repository
}

// peel is the object that an annotated tag is of, or else the object itself.
func (r *repository) peel(h plumbing.Hash) (plumbing.Hash, error) {
	for {
		tag, err := object.GetTag(r.objects, h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return h, nil
		}
		if err != nil {
			return h, fmt.Errorf("git: tag %s: %w", h, err)
		}
		h = tag.Target
	}
}

// commit is the commit that a fetched tag names.
func (r *repository) commit(version string) (*object.Commit, error) {
	h, err := r.peel(r.refs[version])
	if err != nil {
		return nil, err
	}
	c, err := object.GetCommit(r.objects, h)
	if err != nil {
		return nil, fmt.Errorf("git: commit %s of %s: %w", h, version, err)
	}
	return c, nil
}

// files are the files in a folder of a commit, "" for all of it, as the go command has
// them from git archive: links are among them, and submodules are not.
func (r *repository) files(commit *object.Commit, dir string) (list []*object.File, err error) {
	entries, size := 0, int64(0)
	var walk func(tree *object.Tree, dir string) error
	walk = func(tree *object.Tree, dir string) error {
		for _, e := range tree.Entries {
			name := dir + e.Name
			if entries++; entries > maxFiles || size > maxTree || len(name) > maxPath {
				return errors.New("more files, bytes or levels than a module has")
			}
			switch e.Mode {
			case filemode.Submodule:
			case filemode.Dir:
				sub, err := object.GetTree(r.objects, e.Hash)
				if err == nil {
					err = walk(sub, name+"/")
				}
				if err != nil {
					return err
				}
			default:
				blob, err := object.GetBlob(r.objects, e.Hash)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				size += blob.Size
				list = append(list, object.NewFile(name, e.Mode, blob))
			}
		}
		return nil
	}
	tree, err := commit.Tree()
	if err == nil && dir != "" {
		tree, err = tree.Tree(dir)
	}
	if err == nil {
		err = walk(tree, "")
	}
	if err != nil {
		return nil, fmt.Errorf("git: tree %s: %w", path.Join(commit.TreeHash.String(), dir), err)
	}
	return list, nil
}

// A moduleFile is a file as package zip takes it.
type moduleFile struct{ *object.File }

func (f moduleFile) Path() string                 { return f.Name }
func (f moduleFile) Open() (io.ReadCloser, error) { return f.Reader() }
func (f moduleFile) Lstat() (fs.FileInfo, error) {
	mode, err := f.Mode.ToOSFileMode()
	h := zip.FileHeader{Name: f.Name, UncompressedSize64: uint64(f.Size)}
	h.SetMode(mode)
	return h.FileInfo(), err
}

// checked has objects that are what their hashes say, which nothing else makes sure
// of in a folder.
type checked struct{ storer.EncodedObjectStorer }

func (c checked) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	o, err := c.EncodedObjectStorer.EncodedObject(t, h)
	if err != nil {
		return nil, err
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	hasher := plumbing.NewHasher(o.Type(), o.Size())
	if _, err := io.Copy(hasher, r); err != nil {
		return nil, err
	}
	if got := hasher.Sum(); got != h {
		return nil, fmt.Errorf("object %s is corrupt: its content has the hash %s", h, got)
	}
	return o, nil
}

// limiter bounds what a server may send, and makes an error of an answer that is
// none: go-git would quote what comes with it.
type limiter struct{ http.RoundTripper }

func (l limiter) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	bytes := int64(maxPack)
	if req.Method == http.MethodGet {
		bytes = maxRefs
	}
	resp.Body = limit.ReadCloser(resp.Body, bytes)
	return resp, nil
}
