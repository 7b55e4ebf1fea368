package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/xavieralpha/derper/internal/limit"
)

// archiveFile is an uncompressed tar.
type archiveFile interface {
	io.ReadSeeker
	io.ReaderAt
}

// tarFiles are the files in a tar by their names, as an [fs.FS]. They stay there.
type tarFiles map[string]section

// section is a file in a tar, as an [fs.File].
type section struct {
	*io.SectionReader
	info fs.FileInfo
}

func (s section) Stat() (fs.FileInfo, error) { return s.info, nil }
func (s section) Close() error               { return nil }

// Open opens a file.
func (files tarFiles) Open(name string) (fs.File, error) {
	s, ok := files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return section{io.NewSectionReader(s.SectionReader, 0, s.Size()), s.info}, nil
}

// Limits of an archive.
const (
	maxFiles   = 1 << 14 // a real one has some forty
	maxPadding = 1 << 20 // zeros behind its end, in bytes; tar fills up 10 kB
)

// readArchive reads where the files of a tar are. The error is [ErrCorrupt] for an archive
// of which another program may read other files: each name is there once, whatever its
// case, is no folder of another, and leads nowhere else. Links are those that docker save
// made up to version 24 for layers that repeat.
func readArchive(r archiveFile) (tarFiles, error) {
	files, links := tarFiles{}, map[string]string{}
	types := map[string]byte{} // by the name in lower case
	tr := limit.NewTar(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, limit.ErrSparse) {
			return nil, fmt.Errorf("%w: the archive has %w: repack it without", ErrCorrupt, err)
		}
		if err != nil {
			return nil, err
		}
		if len(types) > maxFiles {
			return nil, fmt.Errorf("%w: archive: more than %d files", ErrCorrupt, maxFiles)
		}
		refuse := func(why string) error { return fmt.Errorf("%w: archive: %q: %s", ErrCorrupt, h.Name, why) }
		name := h.Name
		if h.Typeflag == tar.TypeDir {
			name = strings.TrimSuffix(name, "/")
		}
		if name != "." {
			name = strings.TrimPrefix(name, "./")
		}
		if !plain(name) {
			return nil, refuse("invalid name: it must be relative, without dots, and ASCII")
		}
		key := strings.ToLower(name)
		if before, ok := types[key]; ok && (before != tar.TypeDir || h.Typeflag != tar.TypeDir) {
			return nil, refuse("duplicate name")
		}
		types[key] = h.Typeflag
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader is at the beginning of the content, whatever it read.
			at, err := r.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			files[name] = section{io.NewSectionReader(r, at, h.Size), h.FileInfo()}
		case tar.TypeSymlink:
			if path.Base(name) != "layer.tar" {
				return nil, refuse("link: only those of docker save, to layers, are supported")
			}
			// Of a path in another form, programs think differently where it leads.
			if !plain(strings.TrimPrefix(h.Linkname, "../")) {
				return nil, refuse(fmt.Sprintf("link to %q, which is not a file in it", h.Linkname))
			}
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeDir:
		default:
			return nil, refuse(fmt.Sprintf("type %q: neither a file nor a folder", h.Typeflag))
		}
	}
	for name := range types {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if t, ok := types[dir]; ok && t != tar.TypeDir {
				return nil, fmt.Errorf("%w: archive: %q: both a file and a folder", ErrCorrupt, dir)
			}
		}
	}
	targets := map[string]section{}
	for name, to := range links {
		target, ok := files[to]
		if !ok {
			return nil, fmt.Errorf("%w: archive: %q: link to %q, which is not a file in it", ErrCorrupt, name, to)
		}
		targets[name] = target
	}
	for name, target := range targets {
		files[name] = target
	}
	return files, ended(r)
}

// plain reports whether a name of a file is written in the one way: relative, without dots
// or empty parts, and in letters that no system takes for others.
func plain(name string) bool {
	return fs.ValidPath(name) && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' })
}

// ended returns an error if data follows the end of an archive. Some programs read it as a
// second archive.
func ended(r io.Reader) error {
	rest, err := io.ReadAll(io.LimitReader(r, maxPadding+1))
	if err == nil && (len(rest) > maxPadding || len(bytes.Trim(rest, "\x00")) > 0) {
		err = fmt.Errorf("%w: archive: data after its end", ErrCorrupt)
	}
	return err
}

// notLegacy refuses a layout in an archive that has an image besides, in the form that Docker
// had before version 1.10: docker load looks for that where there is no manifest.json.
// Source: https://github.com/moby/moby/blob/v27.0.0/image/tarexport/load.go, legacyLoad.
func notLegacy(files fs.FS) error {
	archive, _ := files.(tarFiles) // nobody loads a folder in this way
	for name := range archive {
		if dir, base := path.Split(name); name == "repositories" || base == "json" && strings.Count(dir, "/") == 1 {
			return fmt.Errorf("%w: archive: both an OCI layout and an image in Docker's legacy form: %s", ErrCorrupt, name)
		}
	}
	return nil
}
