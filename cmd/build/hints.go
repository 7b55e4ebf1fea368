package main

import (
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/delivery"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/revision"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/upstream"
	"github.com/xavieralpha/derper/internal/verify"
)

// hints say what to do about errors. The first that fits counts.
type hints []struct {
	fits func(error) bool
	text string
}

func is(targets ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func always(err error) bool { return err != nil }

// explain gives an error the hint that fits and its exit code, unless it has its own.
func explain(err error, list hints) error {
	if as[*cli.Error](err) {
		return err
	}
	for _, h := range list {
		switch {
		case !h.fits(err):
		case as[*lock.Difference](err), as[*release.MismatchError](err):
			return cli.Coded(cli.ExitDiffers, err, h.text)
		case errors.Is(err, sign.ErrReference):
			return cli.Coded(cli.ExitUsage, err, h.text)
		default:
			return cli.Failed(err, h.text)
		}
	}
	return err
}

// generalHints are for every command.
var generalHints = hints{
	{as[*upstream.UnservedError], "try again later, or name another module proxy in GOPROXY"},
	{as[*upstream.MissingError], "a release that was made just now takes some time to be everywhere: try again later"},
	{as[*upstream.Disagreement], "a tag was moved, or a source was tampered with: find out why before you go on"},
	{as[*upstream.DowngradeError], "--allow-downgrade goes back, --version names one release"},
	{is(upstream.ErrRepository), "check the network, or name a copy of the repository with --source-repo"},
	{as[*modproxy.SumError], "nothing of it was used; the lock or what was fetched has been tampered with, or the lock is wrong"},
	{is(syscall.ENOSPC), "free space on the disk, or name another place with --cache and --output; what was finished is kept"},
	{is(image.ErrNotBuilt), "name another folder with --output, or remove this one yourself"},
	{is(cache.ErrNotCache), "name another folder with --cache"},
	{is(cache.ErrNoLocks), "name a folder on another file system with --cache or --output"},
	{is(cache.ErrInUse), "wait for it to end"},
	{is(image.ErrNoDocker), "install Docker, or write an archive with --tarball FILE"},
	{is(modproxy.ErrUnreachable), "check the network, or set GOPROXY to a module proxy that can be reached"},
	{is(registry.ErrUnreachable), "check the registry's name and the network, or HTTPS_PROXY"},
	{deniedByGHCR, ghcrHint},
	{is(sign.ErrReference), "name a layout, as ./dist, or the digest: REPOSITORY@sha256:..."},
	{is(sign.ErrNotThere), "push it first; what is signed is what is there"},
	{is(sign.ErrTooMuch), "delete from the registry what does not belong to the image"},
	{is(sign.ErrUnverified), "do not trust the image; or name another key, or another identity"},
	{is(verify.ErrRebuilders), "ask others to rebuild it: " + self() + " verify --attest KEY REF"},
}

// budgetHints are for an image that is too large.
func budgetHints(err error) hints {
	e, _ := errors.AsType[*delivery.BudgetError](err)
	if e == nil {
		return nil
	}
	compare := ""
	if e.File != "" {
		compare = self() + " size --against REPOSITORY:TAG --platform " + string(e.Platform) + " " + e.File + " compares it with an image that was published; "
	}
	return hints{{always, compare + "when the growth is meant, raise budgetBytes in the lock's inputs.variants"}}
}

// verifyHints are for an image that could not be verified.
var verifyHints = hints{
	{is(syscall.ENOSPC), "a platform takes about 2 GB while it is rebuilt: set TMPDIR to a folder with more space"},
	{is(registry.ErrReference), ""},
	{is(registry.ErrUnreachable), "check the registry's name and the network, or HTTPS_PROXY; the path of a layout or an archive begins with ./, ../ or /, or ends in .tar"},
	{is(image.ErrNotFound), "name a reference such as docker.io/camllia/derper:latest, the folder of an OCI layout as ./dist, " +
		"or an archive of docker save or skopeo as ./image.tar"},
	{is(image.ErrCorrupt), "no container runtime takes it as it is: fetch or push it again"},
	{is(revision.ErrUnknown), "for the image of a fork, name a checkout at the commit that built it with --builder; --this-program compares with this program alone, and says what differs"},
	{is(revision.ErrNoSource), "name a checkout of the fork at the commit that built the image"},
	{is(image.ErrForeign), "verify is for images that this project's program made: those say what they were made of"},
	{is(lock.ErrNoOutputs), "record them: " + self() + " --platform all --update-lock"},
}

// layoutHints are for a layout that is not to be pushed.
func layoutHints(dir string) hints {
	whole := self() + " --platform all"
	if filepath.Clean(dir) != "dist" {
		whole += " --output " + dir
	}
	return hints{
		{as[*lock.Difference], "only what the lock records is published; build that with " + whole},
		{is(lock.ErrNoOutputs), "only what the lock records is published; record what a build gives with " + whole + " --update-lock"},
		{is(registry.ErrNoLayout, image.ErrForeign, registry.ErrIncomplete), "build all platforms with " + whole},
	}
}

// deniedByGHCR reports whether ghcr.io has refused something. It answers 403 and DENIED to a
// workflow that the package does not let in, whatever the permissions of the job are.
func deniedByGHCR(err error) bool { return registry.HostOf(err) == "ghcr.io" && registry.Denied(err) }

const ghcrHint = "on ghcr.io a job needs the permission packages: write (to pull, read), and a package that this repository did not make must let it in: " +
	"the package's page, Package settings, Manage Actions access, Add Repository, role Write; a personal token needs the scope write:packages"

// pushHints are for a push that did not end well.
var pushHints = hints{
	{func(err error) bool { e, ok := errors.AsType[*registry.TagError](err); return ok && e.Moves }, "nothing was uploaded and no tag has moved; --retag moves it all the same"},
	{as[*registry.TagError], "nothing was uploaded and no tag has moved; record the image as another revision (docs/lock.md, Versions and revisions), or give it a name of your own with --tag"},
	{as[*registry.MoveError], "everything is uploaded, and every tag names a whole image; running it again moves the tags"},
	{is(image.ErrCorrupt), "no tag has moved; if it is the layout that is corrupt, " + self() + " --platform all --verify-cache writes it anew"},
	{deniedByGHCR, "no tag has moved; " + ghcrHint},
	{registry.Denied, "no tag has moved; log in with docker login, or set the registry's variables (build push -h), with the right to push"},
	{always, "no tag has moved; running it again goes on where it stopped"},
}

// releaseHints are for a step of a release that failed.
func releaseHints(err error) hints {
	list := hints{
		{as[*release.MismatchError], "the folder was changed on its way from the machine that built; nothing was done"},
		{is(github.ErrChanged), "the tags have moved and nothing was recorded; the next run starts from what is there now"},
	}
	if order, ok := errors.AsType[*release.OrderError](err); ok {
		list = hints{{always, "run it first: " + self() + " release --step " + strings.Replace(order.Step, " ", " --platform ", 1)}}
	}
	if step, ok := errors.AsType[*release.StepError](err); ok && (step.Step == "push" || step.Step == "tag") {
		list = slices.Concat(list, layoutHints("dist"), pushHints)
	}
	return append(list, githubHints("contents: write")...)
}

// githubHints are for GitHub's refusal: the token needs a permission.
func githubHints(permission string) hints {
	return hints{{func(err error) bool {
		answer, ok := errors.AsType[*github.Error](err)
		return ok && slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, answer.Status)
	}, "GITHUB_TOKEN needs the permission " + permission + "; a rule that protects the branch may refuse it, too"}}
}
