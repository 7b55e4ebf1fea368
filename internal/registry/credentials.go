package registry

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Credentials are what the environment has for the registries of these references, and
// after that what docker login has left.
func Credentials(references []string, getenv func(string) string) (authn.Keychain, error) {
	given := environment{}
	for _, s := range references {
		ref, err := parse(s)
		if err != nil {
			return nil, err
		}
		userName, passwordName := Variables(ref.host())
		user, password := getenv(userName), getenv(passwordName)
		switch {
		case user != "" && password != "":
			given[ref.name.RegistryStr()] = authn.FromConfig(authn.AuthConfig{Username: user, Password: password})
		case user != "":
			return nil, fmt.Errorf("%s is set, and %s is not", userName, passwordName)
		case password != "":
			return nil, fmt.Errorf("%s is set, and %s is not", passwordName, userName)
		}
	}
	return authn.NewMultiKeychain(given, authn.DefaultKeychain), nil
}

// environment has credentials by registry.
type environment map[string]authn.Authenticator

func (e environment) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if a, ok := e[r.RegistryStr()]; ok {
		return a, nil
	}
	return authn.Anonymous, nil // let the next keychain try
}

// Variables are the names of the two variables of a registry's credentials:
// GHCR_IO_USERNAME and GHCR_IO_PASSWORD for ghcr.io. A dot and a colon become an
// underscore, a dash two.
//
// No two registries share them. In the usual name of a host, what is between two letters
// or digits is a single dot, the colon of a port, or any number of dashes: an odd number
// of underscores, which is one, is a dot or a colon, an even one are dashes. The colon is
// what comes before a number at the end, and if all parts are numbers, before the fifth:
// of hosts, only an address of four parts ends in a number. A host with another name, as
// [::1], has all but letters and digits in hexadecimal after an x, which is the only small
// letter in any name.
func Variables(host string) (user, password string) {
	var name strings.Builder
	isUsual := usual.MatchString(host) && (!number.MatchString(host) || address.MatchString(host))
	for _, c := range []byte(host) {
		switch {
		case c >= '0' && c <= '9' || c >= 'A' && c <= 'Z':
			name.WriteByte(c)
		case c >= 'a' && c <= 'z':
			name.WriteByte(c - 'a' + 'A')
		case !isUsual:
			fmt.Fprintf(&name, "x%02x", c)
		case c == '-':
			name.WriteString("__")
		default:
			name.WriteByte('_')
		}
	}
	return name.String() + "_USERNAME", name.String() + "_PASSWORD"
}

var (
	usual   = regexp.MustCompile(`^[0-9A-Za-z]+((\.|-+)[0-9A-Za-z]+)*(:[0-9]+)?$`)
	number  = regexp.MustCompile(`(^|\.)[0-9]+(:[0-9]+)?$`) // is the host's last part
	address = regexp.MustCompile(`^[0-9]+(\.[0-9]+){3}(:[0-9]+)?$`)
)
