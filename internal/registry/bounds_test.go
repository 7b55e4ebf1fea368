package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

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
	_, err := client.Versions(t.Context(), host+"/derper", "")
	want("a page of tags at a blob's address", err, 3<<20)

	mux.HandleFunc("/v2/endless/tags/list", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Link", `</v2/endless/tags/list>; rel="next"`)
		fmt.Fprint(w, `{"tags":["`+strings.Repeat("a", 1<<19)+`"]}`)
	})
	_, err = client.Versions(t.Context(), host+"/endless", "")
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

// TestNestedIndexes guards against thirty indexes, each of which names the next one twice:
// who follows every name reads a thousand million of them.
func TestNestedIndexes(t *testing.T) {
	store := documents{}
	next := store.put(`{"schemaVersion":2,"mediaType":"` + string(types.OCIManifestSchema1) + `","config":{},"layers":[]}`)
	next.MediaType = types.OCIManifestSchema1
	for range 30 {
		entry, err := json.Marshal(next)
		if err != nil {
			t.Fatal(err)
		}
		next = store.put(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s,%s]}`, types.OCIImageIndex, entry, entry))
		next.MediaType = types.OCIImageIndex
	}
	c := &content{store: store}
	if err := c.add(t.Context(), next); err != nil || len(c.manifests) != 31 {
		t.Errorf("%d manifests, %v", len(c.manifests), err)
	}
}

// documents are manifests by digest, as a store.
type documents map[v1.Hash][]byte

func (d documents) put(text string) v1.Descriptor {
	digest, size, _ := v1.SHA256(strings.NewReader(text)) // reading memory does not fail
	d[digest] = []byte(text)
	return v1.Descriptor{Digest: digest, Size: size}
}

func (d documents) Manifest(_ context.Context, digest v1.Hash) ([]byte, error) { return d[digest], nil }

func (d documents) Blob(context.Context, v1.Hash) (io.ReadCloser, error) {
	return nil, errors.New("no blobs")
}
