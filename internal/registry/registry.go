// Package registry is the only way to registries. It reads images, pushes a release by
// digest, verifies it there, and only then moves tags to it.
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
// Passwords go only over TLS, or to this machine, and nothing that it says contains one, or
// a token. It reads no variable of the environment and no file but the layout; credentials
// come with a [Client].
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/redact"
	"github.com/xavieralpha/derper/internal/retry"
	"github.com/xavieralpha/derper/internal/stall"
)

// Default are the repositories that the image is published in.
var Default = []string{"docker.io/camllia/derper", "ghcr.io/xavieralpha/derper"}

// jobs is how many requests are made of a registry at a time.
const jobs = 4

// Rights are what a connection to a repository may do.
type Rights string

const (
	// Pull is to read, which anybody may do with a public repository: a registry may
	// refuse to talk to somebody without a password who asks for more.
	Pull Rights = Rights(transport.PullScope)
	// Push is to read and to write.
	Push Rights = Rights(transport.PushScope)
)

// A Client is the way to registries, and the only one. Its zero value has no
// credentials.
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
	secrets redact.Secrets
}

func (c *Client) init() {
	c.once.Do(func() {
		c.Patience = cmp.Or(c.Patience, DefaultPatience)
		c.Keychain = cmp.Or(c.Keychain, authn.NewMultiKeychain())
		base := c.Base
		if base == nil {
			t := http.DefaultTransport.(*http.Transport).Clone()
			t.MaxIdleConnsPerHost = 2 * jobs
			base = t
		}
		// What is nearest to the network comes last: go-containerregistry authenticates on
		// top of it, so that a request which comes again with a new token is one to all
		// below.
		base = &retrying{inner: &stall.Transport{Inner: base, After: c.Patience.Stall, Rate: stall.Rate}, patience: c.Patience}
		c.chain = transport.NewUserAgent(&judging{base}, "derper")
	})
}

// A Repository is a place in a registry, with a connection that has logged in.
type Repository struct {
	reference
	client *Client
	auth   http.RoundTripper
}

// A reference is one as people write it: [http://]HOST/PATH[:TAG|@DIGEST].
type reference struct {
	name  name.Repository
	ref   name.Reference // without tag and digest, the tag is latest
	plain bool           // it begins with http://
}

func parse(s string) (reference, error) {
	bare, plain := strings.CutPrefix(s, "http://")
	var options []name.Option
	if plain {
		options = append(options, name.Insecure)
	}
	ref, err := name.ParseReference(bare, options...)
	if err != nil {
		return reference{}, fmt.Errorf("%q is no reference: %w", s, err)
	}
	return reference{ref.Context(), ref, plain}, nil
}

// String is the repository's name, as it is accepted again.
func (r *reference) String() string {
	s := r.host() + "/" + r.name.RepositoryStr()
	if r.plain {
		s = "http://" + s
	}
	return s
}

// host is the registry's, with its port if it has one; Docker Hub's is docker.io.
func (r *reference) host() string {
	if h := r.name.RegistryStr(); h != name.DefaultRegistry {
		return h
	}
	return "docker.io"
}

// CheckName reports whether a repository's name is well-formed.
func CheckName(repository string) error {
	if _, err := name.NewRepository(strings.TrimPrefix(repository, "http://")); err != nil {
		return fmt.Errorf("repository %q: %w: expected HOST/PATH, without tag or digest", repository, err)
	}
	return nil
}

// Split splits a reference into the repository's name and a tag, which is latest where
// there is none, or a digest.
func Split(ref string) (repository, identifier string, err error) {
	r, err := parse(ref)
	if err != nil {
		return "", "", err
	}
	return r.String(), r.ref.Identifier(), nil
}

// Open connects to the repository of a reference, [http://]HOST/PATH[:TAG|@DIGEST],
// and logs in. A repository that is written to need not exist. With http://, the
// registry may be spoken to without encryption; no password goes there all the same,
// unless it is this machine.
func (c *Client) Open(ctx context.Context, ref string, rights Rights) (*Repository, error) {
	parsed, err := parse(ref)
	if err != nil {
		return nil, err
	}
	r := &Repository{reference: parsed, client: c}
	if err := r.login(ctx, rights, nil); err != nil {
		return nil, err
	}
	return r, nil
}

// login logs in, with the right to pull from other repositories of the same registry too,
// for blobs to be mounted from.
func (r *Repository) login(ctx context.Context, rights Rights, others []name.Repository) (err error) {
	c := r.client
	c.init()
	defer func() { err = c.failed(r, "log in", err) }()
	auth, err := authn.Resolve(ctx, c.Keychain, r.name)
	if err != nil {
		return err
	}
	config, err := authn.Authorization(ctx, auth)
	if err != nil {
		return err
	}
	c.secrets.Add(config.Password, config.Auth, config.IdentityToken, config.RegistryToken)
	if config.Username != "" && config.Password != "" {
		c.secrets.Add(config.Username + ":" + config.Password)
	}
	// Some registries look at the first scope only.
	scopes := []string{r.name.Scope(string(rights))}
	for _, o := range others {
		scopes = append(scopes, o.Scope(transport.PullScope))
	}
	way := &encrypted{inner: c.chain, secrets: &c.secrets, secret: auth != authn.Anonymous, local: loopback((&url.URL{Host: r.name.RegistryStr()}).Hostname())}
	if r.plain {
		way.plain = r.name.RegistryStr()
	}
	return c.again(ctx, func() (err error) {
		r.auth, err = transport.NewWithContext(ctx, r.name.Registry, auth, way, scopes)
		return err
	})
}

// options are for go-containerregistry's package remote: with them, it speaks to the
// repository through this connection.
func (r *Repository) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(r.auth),
		// Failures are seen to here, and not at two levels at once.
		remote.WithRetryPredicate(func(error) bool { return false }),
	}
}

func (r *Repository) digest(h v1.Hash) name.Digest { return r.name.Digest(h.String()) }

// Resolve says what the reference names that the repository was opened with.
func (r *Repository) Resolve(ctx context.Context) (v1.Descriptor, error) {
	if d, err := r.head(ctx, r.ref); err == nil && d != nil {
		return *d, nil
	}
	// Some registries answer no HEAD, and none says why it does not.
	m, err := r.read(ctx, r.ref)
	if err != nil {
		return v1.Descriptor{}, r.client.failed(r, r.ref.Identifier(), err)
	}
	return v1.Descriptor{MediaType: m.mediaType, Digest: m.digest, Size: int64(len(m.raw))}, nil
}

// Manifest reads a manifest or an index, whose size has a limit and whose content has
// been checked against its digest.
func (r *Repository) Manifest(ctx context.Context, h v1.Hash) ([]byte, error) {
	m, err := r.read(ctx, r.digest(h))
	if err != nil {
		return nil, r.client.failed(r, "manifest "+h.String(), err)
	}
	return m.raw, nil
}

// Blob reads a blob. At its end, its content has been checked against its digest. Only who
// reads it knows how large it may be.
func (r *Repository) Blob(ctx context.Context, h v1.Hash) (io.ReadCloser, error) {
	rc, err := r.blob(ctx, h)
	return rc, r.client.failed(r, "blob "+h.String(), err)
}

func (r *Repository) blob(ctx context.Context, h v1.Hash) (rc io.ReadCloser, err error) {
	ctx = context.WithValue(ctx, blobKey{}, true)
	err = r.client.again(ctx, func() error {
		l, err := remote.Layer(r.digest(h), r.options(ctx)...)
		if err == nil {
			rc, err = l.Compressed()
		}
		return err
	})
	return rc, err
}

// An Error is one of a repository. It is one line, and tells no secret.
type Error struct {
	host string
	err  error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

func (c *Client) failed(r *Repository, what string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{r.host(), c.secrets.Error(fmt.Errorf("%s: %s: %w", r, what, err))}
}

// HostOf is the registry that an error is of, "" for none.
func HostOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.host
	}
	return ""
}

// status is the status of a registry's answer that an error is about, 0 for none.
func status(err error) int {
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.StatusCode
	}
	return 0
}

// NotFound reports whether an error is a registry's that does not have what was asked
// for.
func NotFound(err error) bool { return status(err) == http.StatusNotFound }

// Denied reports whether an error is a registry's that knows no such user, or lets the
// user not do that.
func Denied(err error) bool {
	return status(err) == http.StatusUnauthorized || forbidden(err)
}

// Unreachable reports whether an error is that of a registry which gives no answer, or
// cannot give one.
func Unreachable(err error) bool {
	refused := errors.Is(err, errPlain) || errors.Is(err, errPassword) || errors.Is(err, limit.Err) // here
	_, network := errors.AsType[net.Error](err)                                                     // *url.Error is one
	return HostOf(err) != "" && !refused && (status(err) >= 500 || network)
}

// again tries f until it works, or will not work.
func (c *Client) again(ctx context.Context, f func() error) error {
	var last error
	err := retry.Policy{Attempts: c.Patience.Attempts, Backoff: c.Patience.Backoff}.Do(ctx, func(bool) (bool, error) {
		last = f()
		return last != nil && ctx.Err() == nil && !final(last), last
	})
	return cmp.Or(last, err) // why it failed, and not that the wait was cut short
}

// final reports whether it is of no use to try what gave this error again: because
// it will stay the same, or because the request has been tried again already. What
// is left is the upload of a blob, which begins anew, and an answer that broke off
// or was not what was asked for.
func final(err error) bool {
	if hopeless(err) {
		return true
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok && answer.Request != nil {
		again := repeatable(answer.Request.Method, answer.Request.URL.Path)
		switch answer.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
			return true
		case http.StatusConflict, http.StatusPreconditionFailed: // a tag that is immutable
			return again
		case http.StatusNotFound: // the upload, and not the blob, if it is in the middle of one
			return again
		}
		return again && temporary(answer.StatusCode)
	}
	if network, ok := errors.AsType[*url.Error](err); ok {
		u, perr := url.Parse(network.URL)
		return perr != nil || repeatable(strings.ToUpper(network.Op), u.Path)
	}
	return false
}
