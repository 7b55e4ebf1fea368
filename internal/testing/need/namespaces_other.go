//go:build !linux

package need

import "testing"

// Namespaces is for what makes namespaces, which only Linux has.
func Namespaces(t testing.TB) {
	t.Helper()
	Linux(t)
}
