package registrytest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
)

// RevisionTags matches the tags that name an image for ever: 1.102.3-r1, 1.102.3-r1-debug.
var RevisionTags = regexp.MustCompile(`-r[0-9]+(-[a-z]+)?$`)

// An Immutability is how a registry answers whoever writes a tag that is there and is
// immutable. None of them looks whether it would name what it names already.
type Immutability struct {
	Status        int
	Code, Message string
}

// Immutabilities are the answers of registries. Each of them stands for others: which status
// it is, no specification says.
var Immutabilities = map[string]Immutability{
	// Source: github.com/moby/buildkit, issue 3776.
	"ECR": {http.StatusBadRequest, "TAG_INVALID", "The image tag already exists in the repository and cannot be overwritten because the repository is immutable."},
	// Source: github.com/docker/hub-feedback, issue 2466; what it says there is not documented.
	"Docker Hub": {http.StatusForbidden, "DENIED", "the tag is immutable"},
	// Source: github.com/goharbor/harbor, pull request 9427.
	"Harbor": {http.StatusPreconditionFailed, "PRECONDITION", "The tag is immutable, cannot be overwrite."},
	// Source: Red Hat's issue PROJQUAY-10859.
	"Quay": {http.StatusConflict, "UNKNOWN", "tag is immutable and cannot be overwritten"},
}

// immutable is which tags are immutable, and what came of it.
type immutable struct {
	tags    *regexp.Regexp
	answer  Immutability
	refused []string
}

// Immutable makes the tags that match immutable, once they are there: they can neither be
// written nor removed.
func (p *Proxy) Immutable(tags *regexp.Regexp, how Immutability) {
	p.tagging.Lock()
	defer p.tagging.Unlock()
	p.immutable = immutable{tags: tags, answer: how}
}

// Refused are the requests to write or remove a tag that were refused because it is immutable.
func (p *Proxy) Refused() []string {
	p.tagging.Lock()
	defer p.tagging.Unlock()
	return slices.Clone(p.immutable.refused)
}

var taggedPath = regexp.MustCompile(`^/v2/.+/manifests/([^/:]+)$`)

// forward hands a request on to the registry, unless a tag that is immutable is in the way.
func (p *Proxy) forward(w http.ResponseWriter, req *http.Request) {
	m := taggedPath.FindStringSubmatch(req.URL.Path)
	if m == nil || req.Method != http.MethodPut && req.Method != http.MethodDelete {
		p.behind.ServeHTTP(w, req)
		return
	}
	p.tagging.Lock() // of two that write it, one is first
	defer p.tagging.Unlock()
	if im := &p.immutable; im.tags != nil && im.tags.MatchString(m[1]) && p.there(req) {
		im.refused = append(im.refused, req.Method+" "+req.URL.Path)
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(im.answer.Status)
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, im.answer.Code, im.answer.Message)
		return
	}
	p.behind.ServeHTTP(w, req)
}

// there reports whether the registry has the tag of a request.
func (p *Proxy) there(req *http.Request) bool {
	head := req.Clone(req.Context())
	head.Method, head.Body, head.ContentLength = http.MethodHead, http.NoBody, 0
	head.Header.Del("Content-Type")
	head.Header.Set("Accept", "*/*")
	answer := httptest.NewRecorder()
	p.behind.ServeHTTP(answer, head)
	return answer.Code == http.StatusOK
}
