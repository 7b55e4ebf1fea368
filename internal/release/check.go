package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/lock"
)

// A SourceError says that a lock names another repository as its source than the one that
// releases it.
type SourceError struct{ LockFile, Source, Here string }

func (e *SourceError) Error() string {
	return fmt.Sprintf("release: %s: inputs.source is %s, and this is %s", e.LockFile, e.Source, e.Here)
}

// CheckSource refuses, with a SourceError, a lock whose source is not here, the address of
// the repository that releases it: a fork would publish images that claim to be somebody
// else's. A lock that does not exist yet is that of a channel's first release.
func CheckSource(lockFile, here string) error {
	l, err := lock.Read(lockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !strings.EqualFold(l.Inputs.Source, here) {
		err = &SourceError{lockFile, l.Inputs.Source, here}
	}
	return err
}

// ThisProgram is the digest of the running program.
func ThisProgram() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer f.Close()
	digest, _, err := v1.SHA256(f)
	return digest.Hex, err
}
