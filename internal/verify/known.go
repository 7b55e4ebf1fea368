package verify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
)

// KnownFolder is the folder of the repository with a file for each rebuilder that is known.
const KnownFolder = "rebuilders"

// A Known is a rebuilder as a file of KnownFolder has it. A rebuilder signs with a key or as
// an identity.
type Known struct {
	// Name is that of the file, without .json.
	Name string `json:"name"`
	// Since is the day from which on the rebuilder is known, as 2026-12-31.
	Since string `json:"since"`
	// Key is a public key in PEM, with \n for the ends of its lines.
	Key string `json:"key,omitempty"`
	// Identity, Issuer and SignerRepository are as the flags of build verify-signature that
	// have these names.
	Identity         string `json:"identity,omitempty"`
	Issuer           string `json:"issuer,omitempty"`
	SignerRepository string `json:"signerRepository,omitempty"`
	// Repository is where the attestations are, "" for beside the image.
	Repository string `json:"repository,omitempty"`
}

var knownName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,38}$`)

// ReadKnown reads a folder of rebuilders, a file NAME.json for each, sorted by name. README.md
// is no rebuilder; any other file is an error, so that a file with a wrong name is not left
// out unseen. Errors name the file, and the key in it.
func ReadKnown(dir string) (list []Known, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		file := filepath.Join(dir, f.Name())
		name, ok := strings.CutSuffix(f.Name(), ".json")
		switch {
		case f.Name() == "README.md":
			continue
		case !ok:
			return nil, fmt.Errorf("%s: expected a file NAME.json for each rebuilder", file)
		}
		data, err := os.ReadFile(file)
		var k Known
		if err == nil {
			k, err = ParseKnown(data)
		}
		if err == nil && k.Name != name {
			err = fmt.Errorf("name is %q: expected %q, as the file", k.Name, name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		list = append(list, k)
	}
	return list, nil
}

// ParseKnown reads the file of a rebuilder, strictly.
func ParseKnown(data []byte) (k Known, err error) {
	if err := lock.Decode(data, &k); err != nil {
		return k, err
	}
	_, since := time.Parse(time.DateOnly, k.Since)
	switch {
	case !knownName.MatchString(k.Name):
		return k, fmt.Errorf("name is %q: expected up to 39 of a-z, 0-9 and -", k.Name)
	case since != nil:
		return k, fmt.Errorf("since is %q: expected a day such as 2026-12-31", k.Since)
	case k.Key == "" && (k.Identity == "" || k.Issuer == ""):
		return k, errors.New("expected either key, or identity and issuer")
	case k.Key != "" && (k.Identity != "" || k.Issuer != "" || k.SignerRepository != ""):
		return k, errors.New("key cannot be combined with identity, issuer and signerRepository")
	}
	if k.Repository != "" {
		if err := registry.CheckName(k.Repository); err != nil {
			return k, fmt.Errorf("repository: %w", err)
		}
	}
	return k, nil
}
