// Package atomicfile writes files, whole or not at all.
//
// It promises that who reads a file sees what was there before or all of what was
// written, whenever this program, or the machine, stops.
package atomicfile

import (
	"io"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write replaces the named file by one with the given content, readable for all.
func Write(name string, data []byte) error {
	return WriteFrom(name, filepath.Dir(name), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteFrom replaces the named file by what content writes. A program that is killed
// meanwhile leaves a temporary file in the folder temp, which is on the same file
// system.
func WriteFrom(name, temp string, content func(io.Writer) error) error {
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(temp), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return err
	}
	defer f.Cleanup() // does nothing once it is in its place
	if err := content(f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}
