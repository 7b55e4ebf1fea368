package verify

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/sign"
)

// Scratch makes an empty folder for the cache of a verification that trusts nothing, which
// remove removes. Those that killed verifications left are removed first.
func Scratch() (dir string, remove func() error, err error) {
	const prefix = "derper-verify-"
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")); err == nil {
		cache.RemoveUnused(left)
	}
	if dir, err = os.MkdirTemp("", prefix); err != nil {
		return "", nil, err
	}
	return dir, func() error { return cache.RemoveAll(dir) }, nil
}

// Attest signs what a report found and attaches it to the images in their registries, or to
// their digests in the repository to, which need not have them; "" for none. say is called
// with what became of each.
func Attest(ctx context.Context, r *Report, signer *sign.Signer, client *registry.Client, to string, say func(format string, args ...any)) error {
	for _, s := range r.Subjects {
		if s.Statement == nil {
			say("%s: not attested: it is in no registry, or could not be verified", s.Ref)
			continue
		}
		attach := sign.Attach
		if to != "" {
			attach = sign.AttachElsewhere
		}
		repository, err := client.Open(ctx, cmp.Or(to, s.Ref), registry.Push)
		if err != nil {
			return fmt.Errorf("attest: %w", err)
		}
		done, err := attach(ctx, []attest.Statement{*s.Statement}, signer, []*registry.Repository{repository}, func(int, int) {})
		if err != nil {
			return fmt.Errorf("attest %s: %w", s.Ref, err)
		}
		what := "attached to"
		if done[0].Attached == 0 {
			what = "was there already, attached to"
		}
		if to != "" {
			what += " " + repository.String() + "@" + s.Digest
		} else {
			what += " " + s.Digest
		}
		say("%s: attestation by %s %s", s.Ref, signer.Trust, what)
	}
	return nil
}
