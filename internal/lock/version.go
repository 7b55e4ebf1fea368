package lock

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/semver"
)

// An ImageVersion is the version of an image: the release of tailscale in it, and how
// many images of that release were published before.
type ImageVersion struct {
	Tailscale string // as v1.102.3
	Revision  int
}

// ImageVersion is the version of the image that the inputs give.
func (in Inputs) ImageVersion() ImageVersion { return ImageVersion{in.Tailscale.Version, in.Revision} }

// Version is the image's version as its labels have it: 1.102.3-r1.
func (in Inputs) Version() string { return in.ImageVersion().String() }

// String is the version as labels and tags have it: 1.102.3-r1.
func (v ImageVersion) String() string {
	return strings.TrimPrefix(v.Tailscale, "v") + "-r" + strconv.Itoa(v.Revision)
}

// maxRevision is the largest revision that is read.
const maxRevision = 999_999_999

// revision matches the revision at the end of a version.
var revision = regexp.MustCompile(`-r(0|[1-9][0-9]{0,8})$`)

// ParseImageVersion reads 1.102.3-r1, with or without a v in front. A version without a
// revision is revision 0: so images were named that have none.
func ParseImageVersion(s string) (v ImageVersion, err error) {
	release := s
	if m := revision.FindStringSubmatch(s); m != nil {
		release = strings.TrimSuffix(s, m[0])
		v.Revision, _ = strconv.Atoi(m[1]) // up to nine digits
	}
	v.Tailscale = "v" + strings.TrimPrefix(release, "v")
	if !isVersion(v.Tailscale) || semver.Build(v.Tailscale) != "" {
		return v, fmt.Errorf("%q is no version such as 1.102.3 or 1.102.3-r1", s)
	}
	return v, nil
}

// Compare orders versions: tailscale's first, then the revision as a number. It is not
// semver's order, in which 1.102.3-r1 is a pre-release and -r10 comes before -r9.
func (v ImageVersion) Compare(w ImageVersion) int {
	return cmp.Or(semver.Compare(v.Tailscale, w.Tailscale), cmp.Compare(v.Revision, w.Revision))
}

// In reports whether a list has the version, or its release.
func (v ImageVersion) In(list []string) bool {
	return slices.Contains(list, v.Tailscale) || slices.Contains(list, v.String())
}
