package verify

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// tagged matches the tags of a release, with what those of a variant end in.
var tagged = regexp.MustCompile(`^v?([0-9]+\.[0-9]+)(\.[0-9]+)?(-r[0-9]+)?(-[a-z].*)?$`)

// version checks that the image is of the version that it claims, and of the one that its tag
// names: an older image is as genuine as the newest. There is no check when it is.
func (j *job) version() (list []Check) {
	claimed, is := j.found.version, j.inputs.ImageVersion()
	fail := func(format string, args ...any) {
		list = append(list, Check{Level: LevelInput, Name: "version", Result: Fail, Image: claimed.String(), Note: fmt.Sprintf(format, args...)})
	}
	if claimed != is {
		fail("the image claims to be %s, and to be made of tailscale %s", claimed, is.Tailscale)
	}
	if !j.found.opened.Tag {
		return list
	}
	_, tag, err := registry.Split(j.subject.Ref)
	m := tagged.FindStringSubmatch(tag)
	if err != nil || m == nil {
		return list
	}
	short := strings.TrimPrefix(claimed.Tailscale, "v")
	wants, has := m[1], short[:max(0, strings.LastIndex(short, "."))]
	if m[2] != "" {
		wants, has = m[1]+m[2], short
	}
	if m[3] != "" {
		wants, has = wants+m[3], has+fmt.Sprintf("-r%d", claimed.Revision)
	}
	if wants != has {
		fail("the tag is %s, and the image claims to be %s: another release is under this name", diff.Printable(tag), claimed)
	}
	return list
}
