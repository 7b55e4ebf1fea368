package health

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// acmePause is how long no handshake is made after one that failed. Each makes
// derper order a certificate, and Let's Encrypt takes five failures an hour.
// Source: https://letsencrypt.org/docs/rate-limits/#authorization-failures-per-identifier-per-account.
const acmePause = 15 * time.Minute

// An ACME keeps the health check from making derper order certificates. The
// zero value is one that has not seen any handshake.
type ACME struct {
	mu    sync.Mutex
	tried time.Time // the last handshake that failed
	cause string    // why, as far as it is known
}

// Failed takes notice of why derper could not get a certificate.
func (a *ACME) Failed(cause string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cause = cause
}

// told says whether the cause is known.
func (a *ACME) told() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cause != ""
}

// may returns nil if a handshake may be made: derper has a certificate already,
// or the last one that failed was long ago.
func (a *ACME) may(dir, host string) error {
	if _, ok := certificate.Cached(dir, host, time.Now()); ok {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait := time.Until(a.tried.Add(acmePause)); wait > 0 {
		return fmt.Errorf("%w; not asked again for %v", a.missing(host), wait.Round(time.Minute))
	}
	a.tried, a.cause = time.Now(), "" // two checks at once make one handshake
	return nil
}

// worked takes notice of a handshake.
func (a *ACME) worked() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tried, a.cause = time.Time{}, ""
}

// A line that derper logs comes at once, and yet later than the end of the
// handshake that it is about.
const lineDelay = 200 * time.Millisecond

// refused takes notice of a handshake that failed, and says why there is no
// certificate.
func (a *ACME) refused(host string, err error) error {
	none := (*dialError)(nil)
	dialed, silent := !errors.As(err, &none), errors.Is(err, errSilent)
	for end := time.Now().Add(lineDelay); dialed && !silent && !a.told() && time.Now().Before(end); {
		time.Sleep(lineDelay / 20)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !dialed { // it came to no handshake
		a.tried = time.Time{}
		return err
	}
	if a.cause == "" && !silent {
		a.cause = err.Error()
	}
	return a.missing(host)
}

// missing says that there is no certificate, and why. derper logs no cause that
// is a timeout.
// Source: types/logger/logger.go, HTTPServerLogFilter.
func (a *ACME) missing(host string) error {
	cause := a.cause
	if cause == "" {
		cause = "derper is still waiting for the CA; if its log does not say why, this container cannot reach the CA"
	}
	return fmt.Errorf("there is no certificate for %s: %s", host, cause)
}
