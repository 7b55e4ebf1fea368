package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/limit"
)

// TestNoEnd guards against a registry that fills memory, or is asked for ever: with what it
// sends to the address of a blob although it is none, with pages of tags without an end, and
// with artifacts of which each has no more than it may.
func TestNoEnd(t *testing.T) {
	hash := func(n int) v1.Hash {
		return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", n)}
	}
	blob := "/v2/derper/blobs/" + hash(1).String()
	var refuses bool // answers 401 and asks for a token
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	defer s.Close()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, req *http.Request) {
		if refuses {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s%s",service="evil"`, s.URL, blob))
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc(blob, func(w http.ResponseWriter, req *http.Request) {
		line := []byte(strings.Repeat(" ", 1<<16))
		for range 64 << 20 / len(line) {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/v2/derper/tags/list", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Link", "<"+blob+`>; rel="next"`)
		fmt.Fprint(w, `{"tags":["`+strings.Repeat("a", 100<<10)+`"]}`)
	})
	host := strings.TrimPrefix(s.URL, "http://")
	read := &counting{}
	client := &Client{Patience: hasty, Base: read}
	want := func(what string, err error, most int64) {
		t.Helper()
		if !errors.Is(err, limit.Err) || read.n > most {
			t.Errorf("%s: %d bytes read, %v", what, read.n, err)
		}
		read.n = 0
	}
	_, err := client.Versions(t.Context(), host+"/derper")
	want("a page of tags at a blob's address", err, 3<<20)

	mux.HandleFunc("/v2/endless/tags/list", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Link", `</v2/endless/tags/list>; rel="next"`)
		fmt.Fprint(w, `{"tags":["`+strings.Repeat("a", 1<<19)+`"]}`)
	})
	_, err = client.Versions(t.Context(), host+"/endless")
	want("pages of tags", err, maxTags+3<<20)

	manifest := func(n int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":%q,"size":2},"layers":[{"digest":%q,"size":%d}]}`, hash(2), hash(1), n)
	}
	var listed []string
	for i, n := range []int{largest + 1, -1} {
		raw := manifest(n)
		digest, _, _ := v1.SHA256(strings.NewReader(raw))
		mux.HandleFunc("/v2/derper/manifests/"+digest.String(), func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			fmt.Fprint(w, raw)
		})
		listed = []string{fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}`, digest, len(raw))}
		mux.HandleFunc("/v2/derper/referrers/"+hash(10+i).String(), func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[%s]}`, strings.Join(listed, ","))
		})
		r, err := client.Open(t.Context(), host+"/derper:1", Pull)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Artifacts(t.Context(), hash(10+i), func(*v1.Manifest) bool { return true })
		want(fmt.Sprintf("an artifact of %d bytes", n), err, 1<<20)
	}

	refuses = true
	if _, err = client.Open(t.Context(), host+"/derper:1", Pull); err == nil || read.n > 2*image.MaxManifest {
		t.Errorf("a token at a blob's address: %d bytes read, %v", read.n, err)
	}
}
