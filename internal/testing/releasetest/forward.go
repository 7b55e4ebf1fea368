package releasetest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// Forward also serves the modules whose paths begin with prefix, as the user's module proxy has
// them, and has their sums in the checksum database.
func (r *Release) Forward(prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forward = append(r.forward, prefix)
}

// get is a file that the user's module proxy has of a module, nil if it does not have it.
func (r *Release) get(m module.Version, ext string) []byte {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return nil
	}
	answer := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/"+path+"/@v/"+m.Version+ext, nil)
	if r.real.ServeHTTP(answer, req); answer.Code != http.StatusOK {
		return nil
	}
	return answer.Body.Bytes()
}

// fetch takes a module over from the user's module proxy, if it is one to be forwarded that is
// not here yet.
func (r *Release) fetch(m module.Version) {
	if _, ok := r.sums[m]; ok || !slices.ContainsFunc(r.forward, func(prefix string) bool { return strings.HasPrefix(m.Path, prefix) }) {
		return
	}
	mod, archive := r.get(m, ".mod"), r.get(m, ".zip")
	if mod == nil || archive == nil {
		return
	}
	f, err := os.CreateTemp("", "module-*.zip")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, bytes.NewReader(archive)); err != nil {
		return
	}
	sum, err := dirhash.HashZip(f.Name(), dirhash.Hash1)
	if err != nil {
		return
	}
	r.mods[m], r.zips[m], r.sums[m] = mod, archive, sum
}
