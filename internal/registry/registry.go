// Package registry pushes a release to registries by digest, verifies it there, and
// only then moves tags to it.
//
// It promises that no tag moves in any repository before all repositories hold the
// whole release, read back: every manifest byte for byte, every blob by its size. A
// tag therefore names something whole at any time, before, during and after a push,
// whatever became of the push.
//
// There is no transaction over several tags, let alone several registries. What is
// promised instead: the tags of the version itself come first, and when they are in
// place everywhere, the moving ones ([Tag]) move all at once, everywhere. If one of
// them cannot be moved, those that moved are put back, and the error says what is
// where. A program that is killed between the first and the last of these requests
// leaves some tags at the new release and some at the old one; the next push of the
// release moves the others and uploads nothing.
//
// Nothing that it says contains a password or a token. It reads no variable of the
// environment and no file but the layout; credentials come with a [Client].
package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xavieralpha/derper/internal/progress"
)

// Default are the repositories that the image is published in.
var Default = []string{"docker.io/camllia/derper", "ghcr.io/xavieralpha/derper"}

// jobs is how many requests are made of a registry at a time.
const jobs = 4

// A Client is the way to registries. Its zero value has no credentials.
type Client struct {
	// Keychain has the credentials; nil for none.
	Keychain authn.Keychain
	// Display shows progress; nil for none.
	Display *progress.Display
	// Patience with registries; zero for DefaultPatience.
	Patience Patience
	// Base is the transport below all others; nil for one that takes proxies and
	// CA roots from where Go's does.
	Base http.RoundTripper

	once    sync.Once
	chain   http.RoundTripper
	secrets secrets

	mu    sync.Mutex
	plain map[string]bool // hosts that may be spoken to without encryption
	open  map[string]*Repository
}

func (c *Client) init() {
	c.once.Do(func() {
		if c.Patience == (Patience{}) {
			c.Patience = DefaultPatience
		}
		base := c.Base
		if base == nil {
			t := http.DefaultTransport.(*http.Transport).Clone()
			t.MaxIdleConnsPerHost = 2 * jobs
			base = t
		}
		c.plain, c.open = map[string]bool{}, map[string]*Repository{}
		c.chain = transport.NewUserAgent(newTransport(base, c.Patience, &c.secrets, func(host string) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.plain[host]
		}), "derper")
	})
}

// A Repository is a place in a registry, with a connection that has logged in.
type Repository struct {
	name   name.Repository
	client *Client
	auth   http.RoundTripper
	attach sync.Mutex
}

// String is the repository's name as people write it.
func (r *Repository) String() string {
	return strings.Replace(r.name.Name(), name.DefaultRegistry+"/", "docker.io/", 1)
}

// parse reads a repository's name: HOST/PATH, or http://HOST/PATH for a registry
// without encryption.
func parse(s string) (name.Repository, error) {
	bare, plain := strings.CutPrefix(s, "http://")
	options := []name.Option{}
	if plain {
		options = append(options, name.Insecure)
	}
	n, err := name.NewRepository(bare, options...)
	if err != nil {
		return n, fmt.Errorf("repository %q: %w: wants HOST/PATH, without tag or digest", s, err)
	}
	return n, nil
}

// CheckName reports whether a repository's name is well-formed.
func CheckName(repository string) error {
	_, err := parse(repository)
	return err
}

// Host is the registry's host in a repository's name, with its port if it has one;
// Docker Hub's is docker.io.
func Host(repository string) (string, error) {
	n, err := parse(repository)
	if err != nil {
		return "", err
	}
	return strings.Replace(n.RegistryStr(), name.DefaultRegistry, "docker.io", 1), nil
}

// Open connects to a repository and logs in, with the right to pull from others of
// the same registry, for blobs to be mounted from. The repository need not exist.
func (c *Client) Open(ctx context.Context, repository string, others ...*Repository) (*Repository, error) {
	c.init()
	n, err := parse(repository)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	r := c.open[n.Name()]
	if strings.HasPrefix(repository, "http://") {
		c.plain[n.RegistryStr()] = true
	}
	c.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r = &Repository{name: n, client: c}
	if err := r.login(ctx, others); err != nil {
		return nil, c.failed(r, "log in", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[n.Name()] = r
	return r, nil
}

func (r *Repository) login(ctx context.Context, others []*Repository) error {
	auth := authn.Anonymous
	if k := r.client.Keychain; k != nil {
		var err error
		if auth, err = authn.Resolve(ctx, k, r.name); err != nil {
			return err
		}
		config, err := authn.Authorization(ctx, auth)
		if err != nil {
			return err
		}
		r.client.secrets.addAuth(*config)
	}
	// Some registries look at the first scope only.
	scopes := []string{r.name.Scope(transport.PushScope)}
	for _, o := range others {
		scopes = append(scopes, o.name.Scope(transport.PullScope))
	}
	return r.client.again(ctx, func() (err error) {
		r.auth, err = transport.NewWithContext(ctx, r.name.Registry, auth, r.client.chain, scopes)
		return err
	})
}

// Options are for go-containerregistry's package remote: with them, it speaks to the
// repository through this connection.
func (r *Repository) Options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(r.auth),
		remote.WithJobs(jobs),
		remote.WithUserAgent("derper"),
		// Failures are seen to here, and not at two levels at once.
		remote.WithRetryPredicate(func(error) bool { return false }),
	}
}

// Digest is the reference of what the repository has under a digest.
func (r *Repository) Digest(h v1.Hash) name.Digest { return r.name.Digest(h.String()) }

// Tag names what a tag points at.
func (r *Repository) Tag(tag string) name.Tag { return r.name.Tag(tag) }

// failed is an error that names the repository and tells no secret.
func (c *Client) failed(r *Repository, what string, err error) error {
	if err == nil {
		return nil
	}
	return c.secrets.redact(fmt.Errorf("%s: %s: %w", r, what, err))
}

// Denied reports whether an error is a registry's that knows no such user, or lets the
// user not do that.
func Denied(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden)
}

// again tries f until it works, or will not work.
func (c *Client) again(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if err == nil || n >= c.Patience.Attempts || ctx.Err() != nil || final(err) {
			return err
		}
		if serr := c.Patience.pause(ctx, n); serr != nil {
			return err
		}
	}
}

// refusals are answers that stay the same.
var refusals = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge}

// final reports whether it is of no use to try what gave this error again: because
// it will stay the same, or because the request has been tried again already. What
// is left is the upload of a blob, which begins anew, and an answer that broke off
// or was not what was asked for.
func final(err error) bool {
	var tooLong *tooLongError
	var answer *transport.Error
	var network *url.Error
	switch {
	case errors.As(err, &tooLong), hopeless(err):
		return true
	case errors.As(err, &answer) && answer.Request != nil:
		method, path := answer.Request.Method, answer.Request.URL.Path
		lost := !repeatable(method, path) && answer.StatusCode == http.StatusNotFound // the upload, not the blob
		return !lost && (slices.Contains(refusals, answer.StatusCode) || repeatable(method, path) && temporary(answer.StatusCode))
	case errors.As(err, &network):
		u, perr := url.Parse(network.URL)
		return perr != nil || repeatable(strings.ToUpper(network.Op), u.Path)
	}
	return false
}
