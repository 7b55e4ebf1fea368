package hostile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/attest"
)

// An Answer is the first to see a request; it reports whether it has answered.
type Answer func(w http.ResponseWriter, req *http.Request) bool

// Serve runs a registry that has the content, and returns a reference to the index by a
// tag. What is pushed there is added.
func (c *Content) Serve(t testing.TB, answer Answer) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if answer == nil || !answer(w, req) {
			c.serve(w, req)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return strings.TrimPrefix(s.URL, "http://") + "/derper:1"
}

func (c *Content) serve(w http.ResponseWriter, req *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind, name := place(req)
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		c.write(w, req, kind, name)
		return
	}
	switch kind {
	case "":
		w.WriteHeader(http.StatusOK)
	case "manifests":
		if to := c.tags[name]; to != "" {
			name = to
		} else if name == "1" {
			name = c.Index
		}
		c.send(w, req, name, kindOf(c.Blobs[name]))
	case "blobs":
		c.send(w, req, name, "application/octet-stream")
	case "referrers":
		data, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: c.Referrers[name]})
		if err != nil {
			panic(err) // of strings and numbers
		}
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		w.Write(data)
	default:
		http.NotFound(w, req)
	}
}

// write takes what is pushed. A blob comes in one piece.
func (c *Content) write(w http.ResponseWriter, req *http.Request, kind, name string) {
	data, err := io.ReadAll(req.Body)
	switch digest := req.URL.Query().Get("digest"); {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case kind == "blobs" && req.Method == http.MethodPost:
		w.Header().Set("Location", "/v2/derper/blobs/uploads/1")
		w.WriteHeader(http.StatusAccepted)
	case kind == "blobs" && req.Method == http.MethodPatch:
		location := "/v2/derper/blobs/uploads/" + strings.TrimPrefix(c.Put(data), "sha256:")
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusAccepted)
	case kind == "blobs":
		if len(data) > 0 {
			c.Put(data)
		}
		w.Header().Set("Docker-Content-Digest", digest)
		w.WriteHeader(http.StatusCreated)
	case kind == "manifests" && req.Method == http.MethodPut:
		c.putManifest(name, data)
		w.Header().Set("Docker-Content-Digest", Digest(data))
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (c *Content) putManifest(name string, data []byte) {
	digest := c.Put(data)
	if !strings.HasPrefix(name, "sha256:") {
		if c.tags == nil {
			c.tags = map[string]string{}
		}
		c.tags[name] = digest
	}
	var m v1.Manifest
	if json.Unmarshal(data, &m) == nil && m.Subject != nil {
		c.Refer(m.Subject.Digest.String(), digest)
	}
}

// Refer lists a manifest among the referrers of a digest.
func (c *Content) Refer(subject, digest string) {
	c.Referrers[subject] = append(c.Referrers[subject], c.descriptor(digest, types.OCIManifestSchema1))
}

// Written are the tags that were pushed, and how many artifacts refer to something.
func (c *Content) Written() (tags []string, artifacts int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, list := range c.Referrers {
		artifacts += len(list)
	}
	return slices.Sorted(maps.Keys(c.tags)), artifacts
}

// place is what a request is about: manifests, blobs, referrers, and the name of one.
func place(req *http.Request) (kind, name string) {
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/derper/")
	if !ok {
		return "", ""
	}
	kind, name, _ = strings.Cut(rest, "/")
	return kind, name
}

func kindOf(data []byte) string {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	_ = json.Unmarshal(data, &m) // a wrong one has none
	return m.MediaType
}

func (c *Content) send(w http.ResponseWriter, req *http.Request, digest, kind string) {
	data, ok := c.Blobs[digest]
	if !ok {
		http.Error(w, `{"errors":[{"code":"NOT_FOUND"}]}`, http.StatusNotFound)
		return
	}
	sent(w, req, data, digest, kind)
}

func sent(w http.ResponseWriter, req *http.Request, data []byte, digest, kind string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if req.Method != http.MethodHead {
		w.Write(data)
	}
}

// Registries are attacks by the registry that an image is in.
var Registries = []Attack{
	served("a tag for which HEAD and GET name two images", func(t testing.TB, g *Good, c *Content) Answer {
		evil := g.evilIndex(t, c)
		return func(w http.ResponseWriter, req *http.Request) bool {
			if _, name := place(req); name != "1" || req.Method == http.MethodHead {
				return false
			}
			c.send(w, req, evil, string(types.OCIImageIndex))
			return true
		}
	}).harmless("what HEAD named is read by its digest, and that is the good one"),
	served("a tag for which HEAD names an image that GET has not", func(t testing.TB, g *Good, c *Content) Answer {
		evil := g.evilIndex(t, c)
		return func(w http.ResponseWriter, req *http.Request) bool {
			if _, name := place(req); name != "1" || req.Method != http.MethodHead {
				return false
			}
			c.send(w, req, evil, string(types.OCIImageIndex))
			return true
		}
	}),
	served("a tag that moves at each request", func(t testing.TB, g *Good, c *Content) Answer {
		evil := g.evilIndex(t, c)
		var mu sync.Mutex
		n := 0
		return func(w http.ResponseWriter, req *http.Request) bool {
			if _, name := place(req); name != "1" {
				return false
			}
			mu.Lock()
			defer mu.Unlock()
			if n++; n == 1 {
				return false
			}
			c.send(w, req, evil, string(types.OCIImageIndex))
			return true
		}
	}).harmless("a tag is asked for once; the report says which digest it is about"),
	served("a tag without HEAD that has no digest in its header", func(_ testing.TB, _ *Good, c *Content) Answer {
		return on("manifests", "1", func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodHead {
				http.Error(w, "no", http.StatusMethodNotAllowed)
				return
			}
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			w.Write(c.Blobs[c.Index])
		})
	}).harmless("the digest is that of the content"),
	served("a tag whose digest in the header is not its content's", func(t testing.TB, g *Good, c *Content) Answer {
		evil := g.evilIndex(t, c)
		return on("manifests", "1", func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodHead {
				http.Error(w, "no", http.StatusMethodNotAllowed)
				return
			}
			sent(w, req, c.Blobs[evil], c.Index, string(types.OCIImageIndex))
		})
	}),
	served("an evil index under the good one's digest", func(t testing.TB, g *Good, c *Content) Answer {
		evil := g.evilIndex(t, c)
		return on("manifests", c.Index, func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, c.Blobs[evil], c.Index, string(types.OCIImageIndex))
		})
	}),
	served("an index in the place of an image", func(t testing.TB, _ *Good, c *Content) Answer {
		return on("manifests", c.Manifests(t).Manifests[0].Digest.String(), func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, c.Blobs[c.Index], c.Index, string(types.OCIImageIndex))
		})
	}),
	served("an evil image under the good one's digest", func(t testing.TB, g *Good, c *Content) Answer {
		evil, good := g.Evil(t, c), c.Manifests(t).Manifests[0].Digest.String()
		return on("manifests", good, func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, c.Blobs[evil.Digest.String()], good, string(types.OCIManifestSchema1))
		})
	}),
	served("a type in the header that is not the index's", func(_ testing.TB, _ *Good, c *Content) Answer {
		return on("manifests", c.Index, func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, c.Blobs[c.Index], c.Index, string(types.OCIManifestSchema1))
		})
	}).harmless("the index says what it is"),
	served("a web page in the place of an index", func(testing.TB, *Good, *Content) Answer {
		return on("manifests", "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>please log in\x1b[2J</html>")
		})
	}),
	served("an empty answer", func(testing.TB, *Good, *Content) Answer {
		return on("manifests", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	}),
	served("a manifest of 60 MiB", func(_ testing.TB, _ *Good, c *Content) Answer {
		return on("manifests", c.Index, func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			endless(w, req, 60<<20)
		})
	}),
	served("a manifest that is said to have 8 EB", func(_ testing.TB, _ *Good, c *Content) Answer {
		return on("manifests", c.Index, func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", string(types.OCIImageIndex))
			w.Header().Set("Content-Length", "9223372036854775807")
			w.Write(make([]byte, 1<<20))
		})
	}),
	served("a config of 60 MiB", func(t testing.TB, _ *Good, c *Content) Answer {
		return on("blobs", c.First(t).Config.Digest.String(), func(w http.ResponseWriter, req *http.Request) { endless(w, req, 60<<20) })
	}),
	served("a layer with bytes behind it", func(t testing.TB, _ *Good, c *Content) Answer {
		digest := c.First(t).Layers[2].Digest.String()
		return on("blobs", digest, func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, append(bytes.Clone(c.Blobs[digest]), "evil"...), digest, "application/octet-stream")
		})
	}),
	served("a layer without an end", func(t testing.TB, _ *Good, c *Content) Answer {
		digest := c.First(t).Layers[2].Digest.String()
		return on("blobs", digest, func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodHead {
				return
			}
			w.Write(c.Blobs[digest])
			endless(w, req, 1<<40)
		})
	}),
	served("a layer with one other bit", func(t testing.TB, _ *Good, c *Content) Answer {
		digest := c.First(t).Layers[2].Digest.String()
		return on("blobs", digest, func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, flipped(c.Blobs[digest]), digest, "application/octet-stream")
		})
	}),
	served("another layer under the digest", func(t testing.TB, _ *Good, c *Content) Answer {
		digest, other := c.First(t).Layers[2].Digest.String(), c.First(t).Layers[1].Digest.String()
		return on("blobs", digest, func(w http.ResponseWriter, req *http.Request) {
			sent(w, req, c.Blobs[other], digest, "application/octet-stream")
		})
	}),
	served("a layer that is not there", func(t testing.TB, _ *Good, c *Content) Answer {
		return on("blobs", c.First(t).Layers[2].Digest.String(), http.NotFound)
	}),
	served("a layer that is redirected to another", func(t testing.TB, _ *Good, c *Content) Answer {
		other := c.First(t).Layers[1].Digest.String()
		return on("blobs", c.First(t).Layers[2].Digest.String(), func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/v2/derper/blobs/"+other, http.StatusTemporaryRedirect)
		})
	}),
	served("a layer that is redirected to itself", func(t testing.TB, _ *Good, c *Content) Answer {
		return on("blobs", c.First(t).Layers[2].Digest.String(), func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, req.URL.Path, http.StatusTemporaryRedirect)
		})
	}),
	served("a layer that is redirected to a file of this machine", func(t testing.TB, _ *Good, c *Content) Answer {
		return on("blobs", c.First(t).Layers[2].Digest.String(), func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "file:///etc/passwd", http.StatusTemporaryRedirect)
		})
	}),
	served("an index that is redirected to another", func(t testing.TB, g *Good, c *Content) Answer {
		evil := g.evilIndex(t, c)
		return on("manifests", c.Index, func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, "/v2/derper/manifests/"+evil, http.StatusTemporaryRedirect)
		})
	}),
	served("a layer that is redirected to where it is", func(t testing.TB, _ *Good, c *Content) Answer {
		digest := c.First(t).Layers[2].Digest.String()
		return on("blobs", digest, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.RawQuery == "" {
				http.Redirect(w, req, req.URL.Path+"?elsewhere", http.StatusTemporaryRedirect)
				return
			}
			c.send(w, req, digest, "application/octet-stream")
		})
	}).harmless("its content is checked wherever it is"),
	served("no such image, said with an escape", func(testing.TB, *Good, *Content) Answer {
		return on("manifests", "", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"\u001b[2Jverified"}]}`)
		})
	}),
	served("a refusal of 100 kB", func(testing.TB, *Good, *Content) Answer {
		return on("manifests", "", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, strings.Repeat("evil\n", 20_000))
		})
	}),
	served("a login at a place that is no URL", func(testing.TB, *Good, *Content) Answer {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="file:///etc/passwd",service="evil"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	}),
	served("a login that wants another login", func(testing.TB, *Good, *Content) Answer {
		return func(w http.ResponseWriter, req *http.Request) bool {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="evil"`, req.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	}),
}

// on answers requests for what has a name, or with no name for all of a kind.
func on(kind, name string, answer http.HandlerFunc) Answer {
	return func(w http.ResponseWriter, req *http.Request) bool {
		k, n := place(req)
		if k != kind || name != "" && n != name {
			return false
		}
		answer(w, req)
		return true
	}
}

// endless writes up to n zeros, until the client hangs up.
func endless(w http.ResponseWriter, req *http.Request, n int64) {
	if req.Method == http.MethodHead {
		return
	}
	zeros := make([]byte, 1<<16)
	for ; n > 0; n -= int64(len(zeros)) {
		if _, err := w.Write(zeros); err != nil {
			return
		}
	}
}

// evilIndex puts an index with an evil image into the content.
func (g *Good) evilIndex(t testing.TB, c *Content) string {
	t.Helper()
	evil, n := g.Evil(t, c), *c
	n.Edit(t, func(m *v1.IndexManifest) { m.Manifests[0].Digest, m.Manifests[0].Size = evil.Digest, evil.Size })
	return n.Index
}

// served is an attack by a registry.
func served(name string, answer func(testing.TB, *Good, *Content) Answer) Attack {
	return Attack{Name: name, Serve: answer}
}

// harmless is the attack as one that may pass.
func (a Attack) harmless(why string) Attack {
	a.Harmless = why
	return a
}

// Empty is a registry's content before anything is pushed.
func Empty(t testing.TB) *Content { return contentOf(t, empty.Index) }

// Descriptor names the index.
func (c *Content) Descriptor() v1.Descriptor { return c.descriptor(c.Index, types.OCIImageIndex) }

// Attach lets a Sigstore bundle refer to the index.
func (c *Content) Attach(t testing.TB, predicate string, bundle []byte) {
	t.Helper()
	c.AttachTo(t, c.Descriptor(), predicate, bundle)
}

// AttachTo lets a Sigstore bundle refer to a subject.
// Source: https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md.
func (c *Content) AttachTo(t testing.TB, subject v1.Descriptor, predicate string, bundle []byte) {
	t.Helper()
	const kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
	img, err := attest.Artifact(v1.Manifest{
		ArtifactType: kind, Subject: &subject,
		Annotations: map[string]string{"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate},
	}, attest.Part{Type: kind, Blob: attest.Bytes(bundle)})
	check(t, err)
	c.Refer(subject.Digest.String(), c.PutImage(t, img).Digest.String())
}
