package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/cache"
)

// marker is the file by which a folder is known as a layout that this program
// wrote. It lists the files written and the state that they were left in.
const marker = ".derper-layout.json"

// markerFile is the content of the marker file: cache.State by file name.
type markerFile struct {
	Files map[string]string `json:"files"`
}

// refName is the annotation of a layout's index.json that names what an entry is.
const refName = "org.opencontainers.image.ref.name"

// temporary is the folder in a layout for files that are being written. Earlier
// programs wrote them beside it, under names that begin with it.
const temporary = ".derper-tmp"

// ErrNotBuilt says that a folder has files that this program did not write.
var ErrNotBuilt = errors.New("is not a layout that build wrote")

// WriteLayout writes an index of images as an OCI layout to the folder dir, under the name
// ref, and reports whether anything had to be written. What is there
// already is looked at by its state, with verify by its content.
//
// The folder must be missing, empty, or a layout that an earlier call wrote, else
// the error is [ErrNotBuilt] and nothing is touched. index.json is replaced last, in
// one step: who reads the folder, and who is interrupted, has the old layout or the
// new one. What only the old one needed is removed after that; files that others
// put there stay.
func WriteLayout(dir, ref string, index v1.ImageIndex, verify bool) (written bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("layout %s: %w", dir, err)
		}
	}()
	old, err := readMarker(dir)
	if err != nil {
		return false, err
	}
	files, err := layoutFiles(ref, index)
	if err != nil {
		return false, err
	}
	left, _ := filepath.Glob(filepath.Join(dir, temporary+"*")) // fails for bad patterns only
	for _, name := range left {
		if err := os.RemoveAll(name); err != nil {
			return false, err
		}
	}
	// The files of the new layout, with the state of those that stay, and the old ones.
	now := markerFile{Files: map[string]string{}}
	for name := range old.Files {
		now.Files[name] = ""
	}
	same := len(old.Files) == len(files)
	for _, f := range files {
		now.Files[f.name] = ""
		// The name of index.json does not say what is in it: it is read.
		if s := state(dir, f.name); s != "" && s == old.Files[f.name] && (f.isBlob() && !verify || f.same(dir)) {
			now.Files[f.name] = s
		} else {
			same = false
		}
	}
	if same {
		return false, nil
	}
	defer os.Remove(filepath.Join(dir, temporary))
	// The marker comes first, so that whatever an interrupted run leaves is known as
	// ours to the next.
	if err := now.write(dir); err != nil {
		return false, err
	}
	for _, f := range files {
		if now.Files[f.name] == "" {
			if err := f.write(dir); err != nil {
				return false, err
			}
			now.Files[f.name] = state(dir, f.name)
		}
	}
	for name, state := range now.Files {
		if state == "" {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
			delete(now.Files, name)
		}
	}
	return true, now.write(dir)
}

// CheckLayout reports whether WriteLayout would write to the folder dir, by the
// error [ErrNotBuilt] if not.
func CheckLayout(dir string) error {
	if _, err := readMarker(dir); err != nil {
		return fmt.Errorf("layout %s: %w", dir, err)
	}
	return nil
}

// DropCorrupt removes the blobs of a layout that WriteLayout wrote whose content is not
// what their names say, so that WriteLayout writes them anew.
func DropCorrupt(dir string) error {
	m, err := readMarker(dir)
	for name := range m.Files {
		if f := (layoutFile{name: name}); f.isBlob() && !f.same(dir) {
			if rmErr := os.Remove(filepath.Join(dir, name)); !errors.Is(rmErr, fs.ErrNotExist) {
				err = errors.Join(err, rmErr)
			}
		}
	}
	return err
}

// layoutFile is one file of a layout.
type layoutFile struct {
	name string // relative to the layout
	open func() (io.ReadCloser, error)
}

// isBlob reports whether the file is named by its content.
func (f layoutFile) isBlob() bool {
	return strings.HasPrefix(f.name, "blobs"+string(filepath.Separator))
}

// layoutFiles lists the files of a layout; index.json comes last.
func layoutFiles(ref string, index v1.ImageIndex) ([]layoutFile, error) {
	var files []layoutFile
	seen := map[v1.Hash]bool{}
	add := func(digest v1.Hash, open func() (io.ReadCloser, error)) {
		if !seen[digest] {
			seen[digest] = true
			files = append(files, layoutFile{name: filepath.FromSlash(blobName(digest)), open: open})
		}
	}
	document := func(data []byte, err error) error {
		if err != nil {
			return err
		}
		digest, _, err := v1.SHA256(bytes.NewReader(data))
		add(digest, reader(data))
		return err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range list.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		layers, err := img.Layers()
		for _, l := range layers {
			digest, derr := l.Digest()
			err = errors.Join(err, derr)
			add(digest, l.Compressed)
		}
		if err := errors.Join(err, document(img.RawConfigFile()), document(img.RawManifest())); err != nil {
			return nil, err
		}
	}
	top, err := partial.Descriptor(index)
	if err := errors.Join(err, document(index.RawManifest())); err != nil {
		return nil, err
	}
	top.Annotations = map[string]string{refName: ref}
	entry, err := json.MarshalIndent(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []v1.Descriptor{*top},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(files,
		layoutFile{name: "oci-layout", open: reader([]byte(`{"imageLayoutVersion":"1.0.0"}` + "\n"))},
		layoutFile{name: "index.json", open: reader(append(entry, '\n'))},
	), nil
}

func reader(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// write writes the file, whole or not at all, and makes the folders for it.
func (f layoutFile) write(dir string) error {
	name, temp := filepath.Join(dir, f.name), filepath.Join(dir, temporary)
	if err := errors.Join(os.MkdirAll(temp, 0o755), os.MkdirAll(filepath.Dir(name), 0o755)); err != nil {
		return err
	}
	return atomicfile.WriteFrom(name, temp, func(w io.Writer) error {
		r, err := f.open()
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(w, r)
		return err
	})
}

// readMarker reads the marker of a layout, empty for one that is yet to be.
func readMarker(dir string) (markerFile, error) {
	var m markerFile
	data, err := os.ReadFile(filepath.Join(dir, marker))
	if err == nil {
		if json.Unmarshal(data, &m) != nil {
			return m, fmt.Errorf("%s is damaged: %w", marker, ErrNotBuilt)
		}
		for name := range m.Files {
			if !filepath.IsLocal(name) {
				return m, fmt.Errorf("%s names %s: %w", marker, name, ErrNotBuilt)
			}
		}
		return m, nil
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		// An interrupted first run can leave the marker's temporary file.
		if !strings.HasPrefix(e.Name(), temporary) {
			return m, ErrNotBuilt
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return m, err
}

func (m markerFile) write(dir string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return layoutFile{name: marker, open: reader(append(data, '\n'))}.write(dir)
}

// same reports whether the file in the layout has the content that it should.
func (f layoutFile) same(dir string) bool {
	want := filepath.Base(f.name)
	if !f.isBlob() {
		want = sum(f.open)
	}
	return want != "" && want == sum(func() (io.ReadCloser, error) { return os.Open(filepath.Join(dir, f.name)) })
}

// sum is the SHA-256 of a content, "" for one that cannot be read.
func sum(open func() (io.ReadCloser, error)) string {
	r, err := open()
	if err != nil {
		return ""
	}
	defer r.Close()
	digest, _, _ := v1.SHA256(r) // zero when it fails
	return digest.Hex
}

// state is cache.State of a file in the layout, "" for one that is not there.
func state(dir, name string) string {
	s, err := cache.State(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return string(s)
}
