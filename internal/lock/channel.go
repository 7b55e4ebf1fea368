package lock

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
)

// A Channel is one of upstream's two lines of releases.
// Source: https://tailscale.com/kb/1083/install-unstable.
type Channel string

const (
	Stable   Channel = "stable"   // an even minor version, no pre-release
	Unstable Channel = "unstable" // an odd minor version, or a pre-release
)

// ParseChannel reads a channel's name.
func ParseChannel(s string) (Channel, error) {
	if c := Channel(s); c == Stable || c == Unstable {
		return c, nil
	}
	return "", fmt.Errorf("%q is neither %s nor %s", s, Stable, Unstable)
}

// File is the name of the channel's lock in a checkout.
func (c Channel) File() string {
	if c == Unstable {
		return "versions-unstable.json"
	}
	return File
}

// ChannelOf is the channel that a release, v1.102.3 or 1.102.3, belongs to.
func ChannelOf(version string) Channel {
	version = "v" + strings.TrimPrefix(version, "v")
	_, minor, _ := strings.Cut(semver.MajorMinor(version), ".")
	n, err := strconv.Atoi(minor)
	if err != nil || n%2 == 1 || semver.Prerelease(version) != "" {
		return Unstable
	}
	return Stable
}
