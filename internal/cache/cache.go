// Package cache keeps the results of actions by the actions' keys and the blobs
// that they made by the blobs' digests.
//
// It promises that a blob that is opened or copied has the content its digest
// names, that one that is only named has not been touched since its content was
// last checked, and that what is damaged is dropped and said. Any number of
// programs may use one cache at once; one that is killed leaves nothing that
// another would take for whole.
package cache

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/xavieralpha/derper/internal/atomicfile"
)

// A Cache is a folder:
//
//	actions/<key>.json      an action's result
//	actions/<key>.lock      held while the action runs
//	latest/<id>.json        the result of the last action with this ID
//	blobs/<hex>             content
//	blobs/<hex>.checked     size, time and inode when its content was last checked
//	tmp/<program>/          what a running program is writing, locked by it
//	in-use                  locked by each program that uses the cache
//
// Package toolchain keeps what it fetches and compiles in folders beside these.
type Cache struct {
	dir string
	tmp *flock.Flock // this program's folder in tmp
	use *flock.Flock // the file in-use
	// VerifyAll checks every blob by content, also when it is only named.
	VerifyAll bool
	// Warn is told about damaged entries.
	Warn func(format string, args ...any)
}

// ErrNotCache says that a folder has files and is no cache.
var ErrNotCache = errors.New("is not a cache that build made")

// Open opens the cache in the folder dir. The folder must be missing, empty, or a
// cache, else the error is [ErrNotCache]: Prune removes what is in a cache. It is
// [ErrInUse] while another program prunes it.
func Open(dir string) (*Cache, error) {
	c := &Cache{dir: dir, use: fileLock(filepath.Join(dir, inUse)), Warn: func(string, ...any) {}}
	if err := c.open(); err != nil {
		c.use.Close()
		return nil, fmt.Errorf("cache: %w", err)
	}
	return c, nil
}

// folders are those that are there as long as the cache is.
var folders = []string{"actions", "latest", "blobs", "tmp"}

func (c *Cache) open() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	ours := func(e fs.DirEntry) bool { return e.Name() == inUse }
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) {
		return fmt.Errorf("%s %w", c.dir, ErrNotCache)
	}
	// The file in-use comes first, so that the folder is known as ours whenever
	// this program is killed.
	if ok, err := try(c.use, c.use.TryRLock); !ok {
		return cmp.Or(err, ErrInUse)
	}
	for _, sub := range folders {
		if err := os.MkdirAll(filepath.Join(c.dir, sub), 0o755); err != nil {
			return err
		}
	}
	return c.openTemp()
}

// Dir is the cache's folder.
func (c *Cache) Dir() string { return c.dir }

// TempDir makes a folder for work in progress. The caller removes it; when the
// program is killed before, a later one does.
func (c *Cache) TempDir() (string, error) { return os.MkdirTemp(c.Temp(), "work-") }

// Result is what an action made.
type Result struct {
	// Action is the action itself, so that a later one can be compared with it.
	Action json.RawMessage `json:"action"`
	// Blobs are the files that it made, by name.
	Blobs map[string]Blob `json:"blobs"`
	// Notes are facts about them that are no blobs, as a layer's DiffID.
	Notes map[string]string `json:"notes,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// Time is when it ended.
	Time time.Time `json:"time"`
}

// Blob names content in the cache.
type Blob struct {
	// Digest is sha256:<hex>, Size is in bytes.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

func (c *Cache) actionFile(key, ext string) string {
	return filepath.Join(c.dir, "actions", key+ext)
}

// Get finds the result of the action with this key. It is nil when the action
// must run: there is none, or it or one of its blobs is damaged, which goes to
// Warn.
func (c *Cache) Get(key string) (*Result, error) {
	name := c.actionFile(key, ".json")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	r, err := decode(data)
	if err != nil || len(r.Blobs) == 0 {
		err = fmt.Errorf("%s is %w", name, ErrCorrupt)
	} else {
		for file, b := range r.Blobs {
			if err = c.Check(b); err != nil {
				err = fmt.Errorf("%s: %w", file, err)
				break
			}
		}
	}
	if err == nil {
		return r, nil
	}
	// What is damaged goes, so that it is said once.
	c.Warn("cache: %v; rebuilding", err)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return nil, nil
}

// Put records the result of the action with this key.
// It becomes the latest of all actions with the same id.
func (c *Cache) Put(key, id string, r *Result) error {
	result, err := json.Marshal(r)
	var data []byte
	if err == nil {
		data, err = json.Marshal(entry{Sum: sumOf(result), Result: result})
	}
	for _, name := range []string{c.actionFile(key, ".json"), c.latestFile(id)} {
		if err == nil {
			err = c.write(name, data)
		}
	}
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

// write writes a file, whole or not at all.
func (c *Cache) write(name string, data []byte) error {
	return atomicfile.WriteFrom(name, c.Temp(), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// entry is a result as it stands in a file, with the digest of its JSON, so that no
// damage to it goes unnoticed.
type entry struct {
	Sum    string          `json:"sum"`
	Result json.RawMessage `json:"result"`
}

func decode(data []byte) (*Result, error) {
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	if e.Sum != sumOf(e.Result) {
		return nil, ErrCorrupt
	}
	r := new(Result)
	return r, json.Unmarshal(e.Result, r)
}

func sumOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

func (c *Cache) latestFile(id string) string {
	slug := strings.NewReplacer("/", "-", " ", "-").Replace(id)
	return filepath.Join(c.dir, "latest", slug+".json")
}

// Latest is the action of the last result with this id, nil if there is none.
func (c *Cache) Latest(id string) json.RawMessage {
	data, rerr := os.ReadFile(c.latestFile(id))
	r, err := decode(data)
	if rerr != nil || err != nil {
		return nil // serves only to explain
	}
	return r.Action
}
