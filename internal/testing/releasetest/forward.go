package releasetest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// Forward also serves the modules whose paths begin with prefix, as the user's module proxy has
// them, and has their sums in the checksum database.
func (r *Release) Forward(prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forward = prefix
}

// fetch takes a module over from the user's module proxy, if it is one to be forwarded that is
// not here yet.
func (r *Release) fetch(m module.Version) {
	if _, ok := r.sums[m]; ok || r.forward == "" || !strings.HasPrefix(m.Path, r.forward) {
		return
	}
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return
	}
	get := func(ext string) []byte {
		answer := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "/"+escaped+"/@v/"+m.Version+ext, nil)
		if r.real.ServeHTTP(answer, req); answer.Code != http.StatusOK {
			return nil
		}
		return answer.Body.Bytes()
	}
	mod, archive := get(".mod"), get(".zip")
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
