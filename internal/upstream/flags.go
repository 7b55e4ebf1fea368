package upstream

import (
	"fmt"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
)

// derperSource is the folder of derper's own source in tailscale's.
const derperSource = "cmd/derper"

// flagChanges lists what changed in derper's command line between two releases.
func (r *repository) flagChanges(old, new string) ([]flags.Change, error) {
	before, err := r.flags(old)
	if err != nil {
		return nil, err
	}
	after, err := r.flags(new)
	if err != nil {
		return nil, err
	}
	return flags.Changes(before, after), nil
}

// flags are derper's flags in a release, as far as tailscale's own packages define them: the
// build, which has those of others too, reads all.
func (r *repository) flags(version string) (setting.Release, error) {
	release := setting.Release{Version: strings.TrimPrefix(version, "v")}
	commit, err := r.commit(version)
	if err != nil {
		return release, err
	}
	// The newest Go that there may be: which files are compiled hardly depends on it.
	target := flags.Target{OS: "linux", Arch: "amd64", Go: "go1.99"}
	packages, err := flags.Closure(lock.TailscaleModule+"/"+derperSource, target, func(pkg string) (map[string][]byte, error) {
		dir, ours := strings.CutPrefix(pkg, lock.TailscaleModule+"/")
		if !ours {
			return nil, nil
		}
		return r.goFiles(commit, dir)
	})
	if err == nil {
		release.Flags, _, err = flags.Read(packages, target.Arch)
	}
	if err != nil {
		return release, fmt.Errorf("derper's flags in %s: %w", version, err)
	}
	return release, nil
}

// goFiles are the Go files of a folder, by name.
func (r *repository) goFiles(commit *object.Commit, dir string) (map[string][]byte, error) {
	tree, err := commit.Tree()
	if err == nil {
		tree, err = tree.Tree(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("git: tree %s: %w", path.Join(commit.TreeHash.String(), dir), err)
	}
	files := map[string][]byte{}
	for _, e := range tree.Entries {
		if e.Mode != filemode.Regular || !strings.HasSuffix(e.Name, ".go") {
			continue
		}
		blob, err := object.GetBlob(r.objects, e.Hash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		content, err := object.NewFile(e.Name, e.Mode, blob).Contents()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		files[e.Name] = []byte(content)
	}
	return files, nil
}
