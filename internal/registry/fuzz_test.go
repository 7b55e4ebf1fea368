package registry

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// FuzzVariables guards that no two registries share variables, whatever their names. Of
// one host, those that are alike are tried: each separator replaced by each other.
func FuzzVariables(f *testing.F) {
	for _, host := range []string{"registry.example.com:5000", "a-b--c.d", "127.0.0.1:5", "1.2.3:4", "[::1]:50", "a_b", "a.5", "5:5", "a.-b", "a-.b"} {
		f.Add(host, "a.b")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a)+len(b) > 64 {
			return // a longer name says no more, and has more that are alike
		}
		alike := []string{a, b}
		for i := range len(a) {
			if strings.ContainsRune(".:-_", rune(a[i])) {
				for _, other := range []string{"", ".", ":", "-", "--", "_", "__", "x2e", "x2d", "x5f", "x3a"} {
					alike = append(alike, a[:i]+other+a[i+1:])
				}
			}
		}
		seen := map[string]string{}
		for _, host := range alike {
			if _, err := name.NewRegistry(host); err != nil || host == "" {
				continue
			}
			host = strings.ToLower(host) // which are the same host
			user, _ := Variables(host)
			if other, ok := seen[user]; ok && other != host {
				t.Errorf("%q and %q share %s", host, other, user)
			}
			seen[user] = host
		}
	})
}
