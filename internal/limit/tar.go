package limit

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrSparse says that a tar has a file with holes, which are not in the tar: a header of 227
// bytes gives a file of 8 EiB at most. No tool that makes images writes such files.
var ErrSparse = errors.New("is a sparse file")

// A Tar reads a tar in which no file has more content than the tar has for it: what bounds
// the tar bounds all that is read of its files.
type Tar struct{ *tar.Reader }

// NewTar reads a tar from r.
func NewTar(r io.Reader) Tar { return Tar{tar.NewReader(r)} }

// Next is that of [tar.Reader]. The error is [ErrSparse] for a file with holes, in any of the
// four forms: GNU's old one, and 0.0, 0.1 and 1.0 of those in PAX records.
// Source: GNU tar's manual, "Storing Sparse Files".
func (t Tar) Next() (*tar.Header, error) {
	h, err := t.Reader.Next()
	if err != nil {
		return nil, err
	}
	sparse := h.Typeflag == tar.TypeGNUSparse
	for name := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(name, "GNU.sparse.")
	}
	if sparse {
		return nil, fmt.Errorf("%q: %w", h.Name, ErrSparse)
	}
	return h, nil
}
