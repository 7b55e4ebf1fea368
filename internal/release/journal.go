package release

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/attest"
)

// A journal says which steps were done, and for what: a file for each step, so that
// what several machines did can be put into one folder.
type journal struct {
	dir     string
	entries map[string]entry
}

// An entry says that a step succeeded, and what for.
type entry struct {
	Images       Digests  `json:"images,omitempty"`
	Repositories []string `json:"repositories,omitempty"`
	// Program is the program that did it, With what ran the image or who signed, and
	// Command how the signatures are checked.
	Program string `json:"program"`
	With    string `json:"with,omitempty"`
	Command string `json:"command,omitempty"`
	// Tests are the results of the step test, of this part.
	Tests []attest.Tests `json:"tests,omitempty"`
	// Base is the digest of the lock that the step update started from, Changes what
	// it found for the notes.
	Base    string   `json:"base,omitempty"`
	Changes []string `json:"changes,omitempty"`
	// Before are the digests that the tags which always move named before the step tag, by
	// variant.
	Before Digests `json:"beforeByVariant,omitempty"`
}

// openJournal reads the journal in the folder dir, which need not exist. An entry that
// cannot be read is an error: to start from the beginning, remove it.
func openJournal(dir string) (journal, error) {
	j := journal{dir, map[string]entry{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	for _, name := range names {
		var data []byte
		var e entry
		if data, err = os.ReadFile(name); err == nil {
			err = json.Unmarshal(data, &e)
		}
		if err != nil {
			return j, fmt.Errorf("release: %s: %w; remove it to start from the beginning", name, err)
		}
		j.entries[strings.TrimSuffix(filepath.Base(name), ".json")] = e
	}
	return j, err
}

// entryName is the name of the entry of a step, or of a part of one.
func entryName(step string, part Part) string {
	name := step
	for _, word := range []string{part.Variant, part.Platform.Slug()} {
		if word != "" {
			name += "-" + word
		}
	}
	return name
}

// put writes an entry, whole or not at all.
func (j journal) put(step string, part Part, e entry) error {
	name := entryName(step, part)
	data, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		err = os.MkdirAll(j.dir, 0o755)
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(j.dir, name+".json"), append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("release: journal: %w", err)
	}
	j.entries[name] = e
	return nil
}

// has reports whether a step was done under the very same circumstances.
func (j journal) has(step string, part Part, now entry) bool {
	e, ok := j.entries[entryName(step, part)]
	return ok && e.Program == now.Program && e.With == now.With && j.covers(step, part, now.Images, now.Repositories)
}

// covers reports whether a step was done for these images, in these repositories, by
// whatever program, on whatever machine.
func (j journal) covers(step string, part Part, images Digests, repositories []string) bool {
	e, ok := j.entries[entryName(step, part)]
	return ok && maps.Equal(e.Images, images) && !slices.ContainsFunc(repositories, func(r string) bool {
		return !slices.Contains(e.Repositories, r)
	})
}
