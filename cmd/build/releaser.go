package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/suite"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

// githubIssuer vouches for workflows on GitHub.
// Source: https://docs.github.com/actions, OpenID Connect.
const githubIssuer = "https://token.actions.githubusercontent.com"

// A releaser carries out a release.
type releaser struct {
	releaseOptions
	stderr io.Writer

	journal  *release.Journal
	keychain authn.Keychain
	signer   *sign.Signer
	lock     *lock.Lock
	built    *pipeline.Build
	tags     []registry.Tag
	changes  []string       // for the notes
	before   *release.Image // for the notes
}

func (r *releaser) layout() string { return filepath.Join(r.folder, "dist") }

// say tells what goes on.
func (r *releaser) say(format string, args ...any) {
	fmt.Fprintf(r.stderr, "release: "+format+"\n", args...)
}

// run goes through the steps. What is cheap to look at is looked at again, each time:
// what was built, what the registries have, where the tags are. What is not stands in
// the journal.
func (r *releaser) run(ctx context.Context) (*releaseResult, error) {
	var err error
	if r.keychain, err = credentials(r.repositories); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.folder, 0o755); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	unlock, err := cache.LockFolder(ctx, r.folder, func() { r.say("%s: waiting for another release", r.folder) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.journal, err = release.OpenJournal(r.folder); err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	there, err := r.published(ctx)
	if err != nil {
		return nil, err
	}
	if there {
		return r.result(r.lock.Outputs.Index, false), nil
	}
	if r.key != "" { // before, and not after minutes of work
		if r.signer, err = keySigner(r.key, r.stderr); err != nil {
			return nil, err
		}
	}
	for _, step := range []func(context.Context) error{r.build, r.test, r.push, r.verify, r.sign, r.describe, r.move, r.notes} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return r.result(r.built.Outputs.Index, true), nil
}

// prepare reads the lock, brought up to date if that is asked for.
func (r *releaser) prepare(ctx context.Context) error {
	var lines []string
	if r.update {
		u, err := updateLock(ctx, &r.inputFlags, upstream.Wish{Channel: lock.Channel(r.channel)}, r.upstream, false, r.stderr)
		if err != nil {
			return err
		}
		for _, f := range u.Flags {
			lines = append(lines, f.String())
		}
		r.say("update: %s", map[bool]string{true: "new: " + u.Release, false: "nothing new since " + u.Release}[u.Written])
	}
	var err error
	if r.lock, _, err = r.read(); err != nil {
		return err
	}
	version := r.lock.Inputs.Tailscale.Version
	if r.tags, err = tagsOf(version, "", nil); err != nil {
		return err
	}
	// Only the update that brings the release knows what changed in derper's flags.
	_, err = r.journal.Do(ctx, "changes", []string{version}, &r.changes, func(context.Context) (any, error) { return lines, nil })
	return err
}

// published reports whether the tags of the lock's release are in place everywhere,
// which is the last step of a release.
func (r *releaser) published(ctx context.Context) (bool, error) {
	recorded, err := registry.Recorded(r.lock)
	if errors.Is(err, lock.ErrNoOutputs) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	report, err := r.client(nil).Push(ctx, registry.Plan{Content: recorded, Repositories: r.repositories, Tags: r.tags, Retag: r.retag, DryRun: true})
	if err != nil {
		return false, pushError(err)
	}
	for _, repository := range report.Repositories {
		for _, tag := range repository.Tags {
			if tag.Changed {
				return false, nil
			}
		}
	}
	return true, nil
}

func (r *releaser) client(display *progress.Display) *registry.Client {
	return &registry.Client{Keychain: r.keychain, Display: display}
}

// build builds all platforms. What comes out is recorded in a lock that has no
// outputs, and compared with any other.
func (r *releaser) build(ctx context.Context) error {
	c, err := r.openCache()
	if err != nil {
		return err
	}
	defer c.Close()
	display := progress.New(r.stderr)
	defer display.Close()
	r.built, _, err = buildImage(ctx, r.lock, r.lock.Inputs.Platforms, buildOptions{
		lockFile: r.lockFile, cache: c, display: display, output: r.layout(), update: r.lock.Outputs == nil,
	})
	if err == nil {
		r.say("build: %s", r.built.Outputs.Index)
	}
	return err
}

// step does what the journal does not have. A step depends on this program, on the
// image, and on the key.
func (r *releaser) step(ctx context.Context, name string, key []string, result any, run func(context.Context) (any, error)) error {
	program, err := programDigest()
	if err != nil {
		return err
	}
	ran, err := r.journal.Do(ctx, name, append([]string{program, r.built.Outputs.Index}, key...), result, run)
	if err == nil {
		r.say("%s: %s", name, map[bool]string{true: "done", false: "was done before"}[ran])
	}
	return err
}

// programDigest is the digest of the running program.
func programDigest() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), err
}

// test tests all platforms.
func (r *releaser) test(ctx context.Context) error {
	return r.step(ctx, "test", []string{r.runner}, nil, func(ctx context.Context) (any, error) {
		runner := container.Native()
		if r.runner == "docker" {
			runner = container.Docker()
		}
		images, err := openImages(ctx, r.layout(), r.lock.Inputs.Platforms)
		if err != nil {
			return nil, err
		}
		if err := runner.Sweep(ctx); err != nil {
			return nil, fmt.Errorf("remove what an earlier run left: %w", err)
		}
		result, err := testImages(ctx, suite.Config{Runner: runner, Timeout: 2 * time.Minute}, r.layout(), images, testOptions{asJSON: true}, io.Discard, r.stderr)
		if err != nil {
			return nil, err
		}
		if err := writeJUnit(filepath.Join(r.folder, "test.xml"), result); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !result.Passed {
			return nil, &codedError{fmt.Errorf("%s: %s", r.layout(), failures(result)), exitFailed, "nothing was pushed; the log of each failed case is above, and " + filepath.Join(r.folder, "test.xml") + " has all cases"}
		}
		return nil, nil
	})
}

// push pushes everything and moves no tag.
func (r *releaser) push(ctx context.Context) error { return r.pushWith(ctx, nil, "push") }

// move moves the tags.
func (r *releaser) move(ctx context.Context) error { return r.pushWith(ctx, r.tags, "tags") }

func (r *releaser) pushWith(ctx context.Context, tags []registry.Tag, name string) error {
	image, err := registry.Read(r.layout(), r.lock)
	if err != nil {
		return releaseError(err, r.layout())
	}
	display := progress.New(r.stderr)
	defer display.Close()
	_, err = r.client(display).Push(ctx, registry.Plan{
		Content: image, Repositories: r.repositories, Tags: tags, Retag: r.retag, Verify: tags == nil,
	})
	if err != nil {
		return pushError(err)
	}
	r.say("%s: done", name)
	return nil
}

// references are the image in each repository, by digest.
func (r *releaser) references() (refs []string) {
	for _, repository := range r.repositories {
		refs = append(refs, strings.TrimPrefix(repository, "http://")+"@"+r.built.Outputs.Index)
	}
	return refs
}

// verify reads everything back that the registries serve, and compares it with what
// was built here.
func (r *releaser) verify(ctx context.Context) error {
	return r.step(ctx, "verify", r.references(), nil, func(ctx context.Context) (any, error) {
		c, err := r.openCache()
		if err != nil {
			return nil, err
		}
		defer c.Close()
		display := progress.New(r.stderr)
		defer display.Close()
		c.Warn = display.Printf
		v := &verify.Verifier{Cache: c, Modules: modules(c), Display: display, Lock: r.lock}
		report, err := v.References(ctx, r.references())
		if err != nil {
			return nil, err
		}
		if report.Verdict != verify.Verified {
			_ = report.WriteText(r.stderr)
		}
		return nil, verdict(report)
	})
}

// sign signs the image and attaches what there is to say about it.
func (r *releaser) sign(ctx context.Context) error {
	if r.unsigned {
		return nil
	}
	who := "keyless"
	if r.signer != nil {
		who = r.signer.Trust.String()
	}
	return r.step(ctx, "sign", append(r.references(), who), nil, func(ctx context.Context) (any, error) {
		image, err := openSigned(ctx, r.layout(), r.repositories)
		if err != nil {
			return nil, err
		}
		var run attest.Run
		if r.keyless {
			run = githubRun(os.Getenv)
			if r.signer, err = keylessSigner(ctx, &r.sigstore); err != nil {
				return nil, err
			}
		}
		_, err = signImage(ctx, image, r.lockFile, run, r.signer, r.stderr)
		return nil, err
	})
}

// describe describes what the moving tag names until now.
func (r *releaser) describe(ctx context.Context) error {
	moving := r.tags[len(r.tags)-1].Name
	return r.step(ctx, "before", []string{r.repositories[0], moving}, &r.before, func(ctx context.Context) (any, error) {
		repository, err := r.client(nil).Open(ctx, r.repositories[0]+":"+moving, registry.Pull)
		if err != nil {
			return nil, err
		}
		top, err := repository.Resolve(ctx)
		if registry.NotFound(err) {
			return nil, nil // the first release
		}
		if err != nil {
			return nil, err
		}
		index, err := image.IndexOf(ctx, repository, top)
		if err != nil {
			return nil, err
		}
		before, err := release.Describe(index)
		if err != nil {
			// What somebody else published there has nothing to compare with.
			r.say("%s:%s is no image of this project, and the notes compare with nothing: %v", r.repositories[0], moving, err)
			return nil, nil
		}
		return before, nil
	})
}

// notes writes the notes, and adds them to the page of a workflow's run.
func (r *releaser) notes(context.Context) error {
	var index v1.ImageIndex = r.built.Index
	image, err := release.Describe(index)
	if err != nil {
		return err
	}
	n := &release.Notes{Image: image, Before: r.before, Repositories: r.repositories, Changes: r.changes}
	for _, t := range r.tags {
		n.Tags = append(n.Tags, t.Name)
	}
	for _, ref := range r.references() {
		switch {
		case r.keyless:
			n.Verify = append(n.Verify, fmt.Sprintf("build verify-signature --identity '%s' --issuer %s %s", githubRun(os.Getenv).Builder, githubIssuer, ref))
		case r.key != "":
			n.Verify = append(n.Verify, "build verify-signature --key cosign.pub "+ref)
		}
	}
	var b strings.Builder
	if err := n.Write(&b); err != nil {
		return err
	}
	if err := release.WriteFile(r.notesFile(), []byte(b.String())); err != nil {
		return err
	}
	return addSummary(b.String())
}

func (r *releaser) notesFile() string { return filepath.Join(r.folder, "notes.md") }

func (r *releaser) result(digest string, published bool) *releaseResult {
	result := &releaseResult{Version: r.lock.Inputs.Tailscale.Short(), Digest: digest, Published: published, Repositories: r.repositories}
	for _, t := range r.tags {
		result.Tags = append(result.Tags, t.Name)
	}
	if published {
		result.Notes = r.notesFile()
	}
	return result
}
