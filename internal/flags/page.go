package flags

import (
	"fmt"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// PageFile is where this repository has the page of variables.
const PageFile = "docs/variables.md"

// Page lists the variables of an image whose derper has the flags of a release.
func Page(r setting.Release) []byte {
	table := r.Table()
	var b strings.Builder
	fmt.Fprintf(&b, `# Variables

Those of the image with derper %s; each release writes this page anew. [relay.md](relay.md) says how they work together.
`+"`docker run IMAGE --help`"+` prints the same table for any image, and `+"`docker exec CONTAINER /entrypoint env`"+` the values that count.

Each flag of derper is a variable. For a flag that this project has not described yet, the name follows from a rule: `+"`-some-flag` is `SOME_FLAG`"+`,
or `+"`DERPER_SOME_FLAG`"+` where that name means something else. Its value is checked by its type, a bool as `+"`true` or `false`"+`, and the text is upstream's.

`, r.Version)
	b.WriteString(table.Markdown())
	if off := table.Off(); len(off) > 0 {
		b.WriteString("\n## Not in this release\n\nIts derper lacks the flags of these. Setting one of them to anything but its default is an error.\n\n")
		for _, v := range off {
			fmt.Fprintf(&b, "- `%s` (`-%s`): %s\n", v.Name, v.Flag, v.Help)
		}
	}
	return []byte(b.String())
}
