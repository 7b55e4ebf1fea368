package githubtest

import (
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

var mainBranch = plumbing.NewBranchReferenceName("main")

// init makes the git repository, without a commit.
func (s *Server) init() (err error) {
	s.repository, err = git.PlainInitWithOptions(s.Dir, &git.PlainInitOptions{Bare: true, InitOptions: git.InitOptions{DefaultBranch: mainBranch}})
	return err
}

// head is main's newest commit.
func (s *Server) head() (*object.Commit, error) {
	ref, err := s.repository.Reference(mainBranch, true)
	if err != nil {
		return nil, err
	}
	return s.repository.CommitObject(ref.Hash())
}

// file is a file on main; nil for no such file.
func (s *Server) file(path string) *object.File {
	c, err := s.head()
	if err != nil {
		return nil
	}
	f, err := c.File(path)
	if err != nil {
		return nil
	}
	return f
}

// resolve is the commit that a branch, a tag or a hash means.
func (s *Server) resolve(name string) (*object.Commit, error) {
	h, err := s.repository.ResolveRevision(plumbing.Revision(name))
	if err != nil {
		return nil, err
	}
	return s.repository.CommitObject(*h)
}

// history are the commits of main, newest first: all, or those that change a file.
func (s *Server) history(from *object.Commit, path string) (list []*object.Commit, err error) {
	at := func(c *object.Commit) plumbing.Hash {
		f, err := c.File(path)
		if err != nil {
			return plumbing.ZeroHash
		}
		return f.Hash
	}
	for c := from; c != nil; {
		parent, err := c.Parent(0)
		// git log leaves out a merge that has the file as another of its parents, and goes on there.
		for n := 1; err == nil && path != "" && n < c.NumParents(); n++ {
			if other, oerr := c.Parent(n); oerr == nil && at(other) == at(c) && at(parent) != at(c) {
				parent = other
			}
		}
		if errors.Is(err, object.ErrParentNotFound) {
			parent, err = nil, nil
		}
		if err != nil {
			return nil, err
		}
		before := plumbing.ZeroHash
		if parent != nil {
			before = at(parent)
		}
		if path == "" || at(c) != before {
			list = append(list, c)
		}
		c = parent
	}
	return list, nil
}

// addTag makes a git tag, which must not be there yet.
func (s *Server) addTag(name string, commit plumbing.Hash) error {
	_, err := s.repository.CreateTag(name, commit, nil)
	return err
}

func newCommit(message string, tree plumbing.Hash, parents ...plumbing.Hash) *object.Commit {
	c := &object.Commit{Message: message, Author: object.Signature{Name: "github", Email: "noreply@example.com", When: time.Unix(1767225600, 0).UTC()}, TreeHash: tree, ParentHashes: parents}
	c.Committer = c.Author
	return c
}

// commit commits files to main and returns the commit.
func (s *Server) commit(files map[string]string, message string) (string, error) {
	var parents []plumbing.Hash
	var old *object.Tree
	if head, err := s.head(); err == nil {
		parents = []plumbing.Hash{head.Hash}
		if old, err = head.Tree(); err != nil {
			return "", err
		}
	}
	tree, err := s.tree(old, files)
	if err != nil {
		return "", err
	}
	h, err := s.store(newCommit(message, tree, parents...))
	if err == nil {
		err = s.repository.Storer.SetReference(plumbing.NewHashReference(mainBranch, h))
	}
	return h.String(), err
}

// tree stores a tree with files put over those of an old one, nil for none.
func (s *Server) tree(old *object.Tree, files map[string]string) (plumbing.Hash, error) {
	entries := map[string]object.TreeEntry{}
	if old != nil {
		for _, e := range old.Entries {
			entries[e.Name] = e
		}
	}
	folders := map[string]map[string]string{}
	for path, content := range files {
		name, rest, inside := strings.Cut(path, "/")
		if inside {
			if folders[name] == nil {
				folders[name] = map[string]string{}
			}
			folders[name][rest] = content
			continue
		}
		h, err := s.blob(content)
		if err != nil {
			return h, err
		}
		mode := filemode.Regular
		if strings.HasPrefix(content, "#!") {
			mode = filemode.Executable
		}
		entries[name] = object.TreeEntry{Name: name, Mode: mode, Hash: h}
	}
	for name, files := range folders {
		var below *object.Tree
		if e, ok := entries[name]; ok {
			var err error
			if below, err = s.repository.TreeObject(e.Hash); err != nil {
				return plumbing.ZeroHash, err
			}
		}
		h, err := s.tree(below, files)
		if err != nil {
			return h, err
		}
		entries[name] = object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: h}
	}
	t := &object.Tree{Entries: slices.Collect(maps.Values(entries))}
	slices.SortFunc(t.Entries, func(a, b object.TreeEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	return s.store(t)
}

// sortName is what git orders the entries of a tree by.
func sortName(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

func (s *Server) blob(content string) (plumbing.Hash, error) {
	o := s.repository.Storer.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	_, err = io.WriteString(w, content)
	if err := errors.Join(err, w.Close()); err != nil {
		return plumbing.ZeroHash, err
	}
	return s.repository.Storer.SetEncodedObject(o)
}

func (s *Server) store(v interface {
	Encode(plumbing.EncodedObject) error
}) (plumbing.Hash, error) {
	o := s.repository.Storer.NewEncodedObject()
	if err := v.Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	return s.repository.Storer.SetEncodedObject(o)
}
