package lock

import "slices"

// IsWithdrawn reports whether the lock's release was withdrawn: no build of it is to be
// published until there is a newer release.
func (l *Lock) IsWithdrawn() bool { return slices.Contains(l.Withdrawn, l.Inputs.Tailscale.Version) }
