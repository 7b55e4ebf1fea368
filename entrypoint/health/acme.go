package health

import (
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

// may returns nil if a handshake may be made: derper has a certificate already,
// or the last one that failed was long ago.
func (a *ACME) may(dir, host string) error {
	if _, ok := certificate.Cached(dir, host, time.Now()); ok {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait := time.Until(a.tried.Add(acmePause)); wait > 0 {
		return fmt.Errorf("there is no certificate for %s: %s; not asked again for %v", host, a.cause, wait.Round(time.Minute))
	}
	a.tried = time.Now() // two checks at once make one handshake
	return nil
}

// asked takes notice of a handshake.
func (a *ACME) asked(failed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !failed:
		a.tried, a.cause = time.Time{}, ""
	case a.cause == "":
		a.cause = err.Error()
	}
}
