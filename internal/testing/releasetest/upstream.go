package releasetest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/revlist"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/features"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// repositoryPath is where the server has the git repository.
const repositoryPath = "/upstream.git"

// A Repository is upstream's git repository to a [Release]: a real one, which the
// release's server hands out over HTTP.
type Repository struct {
	*Release
	// URL is the repository's, Dir its folder.
	URL, Dir string
	// Git is for what no method here does.
	Git *git.Repository
	// Whole makes the server know nothing of shallow fetches.
	Whole bool

	commits int
}

// GoMod is the go.mod of the repository's first release.
const GoMod = "module tailscale.com\n\ngo 1.26.6\n"

// NewRepository makes the repository and publishes the lock's release from it.
func NewRepository(t testing.TB, r *Release) *Repository {
	t.Helper()
	u := &Repository{Release: r, URL: r.Proxy + repositoryPath, Dir: filepath.Join(t.TempDir(), repositoryPath)}
	var err error
	if u.Git, err = git.PlainInit(u.Dir, false); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.git = http.StripPrefix(repositoryPath, http.HandlerFunc(u.serveGit))
	r.mu.Unlock()
	u.Commit(t, map[string]string{
		"go.mod":               GoMod,
		"LICENSE":              "tailscale's licence\n",
		".gitattributes":       "go.mod filter=go-mod\n*.go diff=golang\n",
		features.File:          FeatureSource(featuresOf(r.Inputs.Programs)),
		"cmd/derper/derper.go": DerperSource(`flag.String("a", ":443", "address")`, `flag.Bool("dev", false, "development")`, `flag.Duration("tcp-user-timeout", 15*time.Second, "timeout")`),
	})
	version := r.Inputs.Tailscale.Version
	r.Inputs.Tailscale.Commit, r.Inputs.Tailscale.Time = u.Publish(t, version)
	r.Inputs.Tailscale.Sum = r.sums[module.Version{Path: lock.TailscaleModule, Version: version}]
	return u
}

// DerperSource is the source of a derper with flags, given as expressions.
func DerperSource(flags ...string) string {
	return "package main\n\nimport (\n\t\"flag\"\n\t\"time\"\n)\n\nvar (\n\t_ = time.Second\n\t_ = " + strings.Join(flags, "\n\t_ = ") + "\n)\n\nfunc main() { flag.Parse() }\n"
}

// FeatureSource is the source of upstream's list of features, each with what it requires.
func FeatureSource(requires map[string][]string) string {
	var b strings.Builder
	b.WriteString("package featuretags\n\nconst CLI FeatureTag = \"cli\"\n\ntype FeatureTag string\n\n" +
		"func (ft FeatureTag) IsOmittable() bool {\n\tswitch ft {\n\tcase CLI:\n\t\treturn false\n\t}\n\treturn true\n}\n\n" +
		"type FeatureMeta struct {\n\tSym, Desc string\n\tDeps []FeatureTag\n}\n\nvar Features = map[FeatureTag]FeatureMeta{\n")
	for _, name := range slices.Sorted(maps.Keys(requires)) {
		fmt.Fprintf(&b, "\t%q: {Sym: %[1]q, Desc: \"the feature %[1]s\"", name)
		if deps := requires[name]; len(deps) > 0 {
			fmt.Fprintf(&b, ", Deps: []FeatureTag{\"%s\"}", strings.Join(deps, `", "`))
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// featuresOf are features by which the programs of a lock get the build tags that they have.
func featuresOf(programs []lock.Program) map[string][]string {
	requires := map[string][]string{"cli": nil}
	for _, p := range programs {
		for _, name := range p.Features {
			requires[name] = nil
		}
		for _, tag := range p.Tags {
			requires[features.Of(tag)] = nil
		}
	}
	delete(requires, "")
	return requires
}

// Head is the newest commit.
func (u *Repository) Head(t testing.TB) plumbing.Hash {
	t.Helper()
	head, err := u.Git.Head()
	if err != nil {
		t.Fatal(err)
	}
	return head.Hash()
}

// now is the time of the newest commit: an hour after the one before.
func (u *Repository) now() time.Time {
	return time.Date(2026, 9, 1, u.commits, 0, 0, 0, time.UTC)
}

// Commit commits files over those that are there.
func (u *Repository) Commit(t testing.TB, files map[string]string) {
	t.Helper()
	for name, content := range files {
		name = filepath.Join(u.Dir, name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if err == nil {
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	u.commits++
	u.commit(t, "change", false)
}

// Amend commits the folder as it is in the place of the newest commit, at its time
// and with another message.
func (u *Repository) Amend(t testing.TB) {
	t.Helper()
	u.commit(t, "the same, but not quite", true)
}

func (u *Repository) commit(t testing.TB, message string, amend bool) {
	t.Helper()
	w, err := u.Git.Worktree()
	if err == nil {
		err = w.AddWithOptions(&git.AddOptions{All: true})
	}
	if err == nil {
		_, err = w.Commit(message, &git.CommitOptions{Author: u.author(), AllowEmptyCommits: true, Amend: amend})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (u *Repository) author() *object.Signature {
	return &object.Signature{Name: "a", Email: "a@example.com", When: u.now()}
}

// Tag puts a tag on the newest commit, or moves it there.
func (u *Repository) Tag(t testing.TB, version string) {
	t.Helper()
	u.TagObject(t, version, u.Head(t))
}

// TagObject is Tag of any object.
func (u *Repository) TagObject(t testing.TB, version string, h plumbing.Hash) {
	t.Helper()
	if err := u.Git.Storer.SetReference(plumbing.NewHashReference(plumbing.NewTagReferenceName(version), h)); err != nil {
		t.Fatal(err)
	}
}

// TagAnnotated is Tag with an annotated one, which is an object of its own.
func (u *Repository) TagAnnotated(t testing.TB, version string) {
	t.Helper()
	u.Annotate(t, version, u.Head(t))
}

// Annotate is TagAnnotated of any object. It returns the tag.
func (u *Repository) Annotate(t testing.TB, version string, h plumbing.Hash) plumbing.Hash {
	t.Helper()
	if err := u.Git.DeleteTag(version); err != nil && !errors.Is(err, git.ErrTagNotFound) {
		t.Fatal(err)
	}
	ref, err := u.Git.CreateTag(version, h, &git.CreateTagOptions{Tagger: u.author(), Message: "release " + version})
	if err != nil {
		t.Fatal(err)
	}
	return ref.Hash()
}

// Untag removes a tag.
func (u *Repository) Untag(t testing.TB, version string) {
	t.Helper()
	if err := u.Git.DeleteTag(version); err != nil {
		t.Fatal(err)
	}
}

// Publish tags the newest commit and puts it into the module proxy and the checksum
// database.
func (u *Repository) Publish(t testing.TB, version string) (commit string, at time.Time) {
	t.Helper()
	u.Tag(t, version)
	return u.PublishModule(t, version)
}

// PublishModule is Publish without a tag. The module is made of the folder, not of
// git's objects.
func (u *Repository) PublishModule(t testing.TB, version string) (commit string, at time.Time) {
	t.Helper()
	m := module.Version{Path: lock.TailscaleModule, Version: version}
	var b bytes.Buffer
	if err := modzip.CreateFromDir(&b, m, u.Dir); err != nil {
		t.Fatal(err)
	}
	goMod, err := os.ReadFile(filepath.Join(u.Dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum := hashZip(t, b.Bytes())
	u.mu.Lock()
	u.zips[m], u.mods[m], u.sums[m] = b.Bytes(), goMod, sum
	u.mu.Unlock()
	u.SetInfo(version, u.now(), "")
	return u.Head(t).String(), u.now()
}

// SetInfo changes what the module proxy tells about a version: its time, and as its
// origin a commit, unless that is empty.
func (u *Repository) SetInfo(version string, at time.Time, commit string) {
	info := fmt.Appendf(nil, `{"Version":%q,"Time":%q}`, version, at.Format(time.RFC3339))
	if commit != "" {
		info = fmt.Appendf(nil, `{"Version":%q,"Time":%q,"Origin":{"VCS":"git","Hash":%q}}`, version, at.Format(time.RFC3339), commit)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.infos[module.Version{Path: lock.TailscaleModule, Version: version}] = info
}

// AddToolchain makes the module proxy have a Go, by name only, for some hosts.
func (r *Release) AddToolchain(version string, hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, host := range hosts {
		r.sums[lock.Go{Version: version}.Module(host)] = "h1:" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%-32.32s", version+host))
	}
}

// SetToolchains makes the module proxy have the real Go toolchains of these versions, and no
// others.
func (r *Release) SetToolchains(t testing.TB, versions ...string) {
	t.Helper()
	dir := t.TempDir()
	real := &modproxy.Client{Proxies: proxies, Dir: dir, Temp: dir}
	sums := map[module.Version]string{}
	for _, v := range versions {
		for _, host := range lock.Hosts {
			m := lock.Go{Version: v}.Module(host)
			sum, err := real.Sum(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			sums[m] = sum
		}
	}
	r.Remove(lock.ToolchainModule)
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.sums, sums)
}

// Remove makes the module proxy have no version of a module.
func (r *Release) Remove(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.sums, func(m module.Version, _ string) bool { return m.Path == path })
}

// Go is a real Go toolchain, as a lock has it.
func (r *Release) Go(version string) lock.Go {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := lock.Go{Version: version, Sums: map[string]string{}}
	for _, host := range lock.Hosts {
		g.Sums[host] = r.sums[g.Module(host)]
	}
	return g
}

// serveGit answers as git upload-pack does over HTTP, in version 0 of its protocol.
// go-git's own server knows no shallow fetch, and does not peel tags.
// Source: gitprotocol-http(5), gitprotocol-pack(5).
func (u *Repository) serveGit(w http.ResponseWriter, req *http.Request) {
	var err error
	switch {
	case req.Method == http.MethodGet && req.URL.Path == "/info/refs" && req.URL.Query().Get("service") == transport.UploadPackServiceName:
		err = u.listRefs(w)
	case req.Method == http.MethodPost && req.URL.Path == "/"+transport.UploadPackServiceName:
		err = u.sendPack(w, req.Body)
	default:
		http.NotFound(w, req)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (u *Repository) listRefs(w io.Writer) error {
	list := packp.NewAdvRefs()
	list.Prefix = [][]byte{[]byte("# service=" + transport.UploadPackServiceName), pktline.Flush}
	for _, c := range []capability.Capability{capability.OFSDelta, capability.Sideband64k, capability.NoProgress, capability.Shallow} {
		if c == capability.Shallow && u.Whole {
			continue
		}
		if err := list.Capabilities.Set(c); err != nil {
			return err
		}
	}
	refs, err := u.Git.References()
	if err != nil {
		return err
	}
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() != plumbing.HashReference {
			return nil
		}
		name := ref.Name().String()
		list.References[name] = ref.Hash()
		if at := u.peel(ref.Hash()); at != ref.Hash() {
			list.Peeled[name] = at
		}
		return nil
	})
	if err != nil {
		return err
	}
	return list.Encode(w)
}

// peel is what an annotated tag is of in the end, or else the object itself.
func (u *Repository) peel(h plumbing.Hash) plumbing.Hash {
	for {
		tag, err := u.Git.TagObject(h)
		if err != nil {
			return h
		}
		h = tag.Target
	}
}

func (u *Repository) sendPack(w io.Writer, body io.Reader) error {
	req := packp.NewUploadRequest()
	if err := req.Decode(body); err != nil {
		return err
	}
	objects, err := revlist.Objects(u.Git.Storer, req.Wants, nil)
	if err != nil {
		return err
	}
	if !req.Depth.IsZero() {
		var cut packp.ShallowUpdate
		if objects, cut.Shallows, err = u.shallow(req.Wants); err != nil {
			return err
		}
		if err := cut.Encode(w); err != nil {
			return err
		}
	}
	if err := (&packp.ServerResponse{}).Encode(w, false); err != nil {
		return err
	}
	if _, err := packfile.NewEncoder(sideband.NewMuxer(sideband.Sideband64k, w), u.Git.Storer, false).Encode(objects, 10); err != nil {
		return err
	}
	return pktline.NewEncoder(w).Flush()
}

// shallow are the objects of a fetch of depth 1, and the commits whose parents are
// left out.
func (u *Repository) shallow(wants []plumbing.Hash) (objects, cut []plumbing.Hash, err error) {
	for _, h := range wants {
		for tag, err := u.Git.TagObject(h); err == nil; tag, err = u.Git.TagObject(h) {
			objects = append(objects, h)
			h = tag.Target
		}
		roots := []plumbing.Hash{h}
		if c, err := u.Git.CommitObject(h); err == nil {
			objects, roots = append(objects, h), []plumbing.Hash{c.TreeHash}
			if len(c.ParentHashes) > 0 {
				cut = append(cut, h)
			}
		}
		of, err := revlist.Objects(u.Git.Storer, roots, nil)
		if err != nil {
			return nil, nil, err
		}
		objects = append(objects, of...)
	}
	slices.SortFunc(objects, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(objects), cut, nil
}
