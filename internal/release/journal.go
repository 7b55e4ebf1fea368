// Package release keeps the journal of a release, so that one that stopped goes on
// where it was, and writes the notes that go with it.
//
// It promises that a step whose record is in the journal ran to its end, with the
// very things that the record names, after all the steps before it did. It does not
// build, test or publish: the caller's steps do.
package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper/internal/atomicfile"
)

// JournalFile is the journal's name in the folder of a release.
const JournalFile = "journal.json"

// A Journal is the record of a release's steps, in a file.
type Journal struct {
	file  string
	chain string // of the steps so far
	done  map[string]record
}

// A record says that a step ended well.
type record struct {
	// Key is the digest of what the step, and every one before it, depended on.
	Key string `json:"key"`
	// Result is what the step has for those after it.
	Result json.RawMessage `json:"result,omitempty"`
}

// OpenJournal opens the journal in the folder dir, which it makes. A journal that
// cannot be read is an error: to begin anew, remove it.
func OpenJournal(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	j := &Journal{file: filepath.Join(dir, JournalFile), done: map[string]record{}}
	data, err := os.ReadFile(j.file)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &j.done)
	}
	if err != nil {
		return nil, fmt.Errorf("release: %s: %w; remove it to begin anew", j.file, err)
	}
	return j, nil
}

// Do does the next step, unless the journal says that it was done with the same
// key, after the same steps. What run returns is kept as JSON, and is stored in
// the value that result points to, now as when the step is left out; both may be nil.
func (j *Journal) Do(ctx context.Context, name string, key []string, result any, run func(ctx context.Context) (any, error)) (ran bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	sum := sha256.Sum256([]byte(j.chain + "\n" + name + "\n" + strings.Join(key, "\n")))
	j.chain = hex.EncodeToString(sum[:])
	if r, ok := j.done[name]; ok && r.Key == j.chain {
		return false, decode(r.Result, result)
	}
	value, err := run(ctx)
	if err != nil {
		return true, fmt.Errorf("%s: %w", name, err)
	}
	r := record{Key: j.chain}
	if value != nil {
		if r.Result, err = json.Marshal(value); err != nil {
			return true, fmt.Errorf("%s: %w", name, err)
		}
	}
	j.done[name] = r
	if err := j.save(); err != nil {
		return true, err
	}
	return true, decode(r.Result, result)
}

func decode(data json.RawMessage, into any) error {
	if into == nil || data == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// save replaces the file in one step.
func (j *Journal) save() error {
	data, err := json.MarshalIndent(j.done, "", "  ")
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return WriteFile(j.file, append(data, '\n'))
}

// WriteFile writes a file, whole or not at all.
func WriteFile(name string, data []byte) error {
	if err := atomicfile.Write(name, data); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}
