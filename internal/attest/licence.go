package attest

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// covered is how much of a text must be a licence's, in percent, for the text to be
// taken for it. Source: the same threshold as that of pkg.go.dev.
const covered = 75

// notSPDX are licensecheck's identifiers that SPDX has not.
// Source: https://spdx.org/licenses.
var notSPDX = []string{
	"Aladdin-9", "Anti996", "BSD-1-Clause-Clear", "BSD-3-Clause-NoTrademark", "CommonsClause", "GPL-2.0-or-3.0",
	"GooglePatentClause", "GooglePatentsFile", "MIT-NoAd", "NIST-PD-TNT", "Prosperity-3.0.0", "SSH-OpenSSH-Old",
}

// Ready makes ready what [Image] compares notices with: all known licences. It takes a second
// or two of one processor the first time.
func Ready() { licensecheck.Scan(nil) }

// identify names the licences in a text by their SPDX identifiers, sorted. It names
// none when more of the text is unknown than a line of copyright.
func identify(text []byte) []string {
	found := licensecheck.Scan(text)
	if found.Percent < covered {
		return nil
	}
	var ids []string
	for _, m := range found.Match {
		if !m.IsURL && !slices.Contains(notSPDX, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// isLicence matches the name of the text of a licence, and not that of a list of
// copyrights or a grant of patents.
var isLicence = regexp.MustCompile(`(?i)^((un)?licen|copying)`).MatchString

// declared is the SPDX expression for a module whose notices lie in the given folder:
// all licences that came with it, those of code that it has taken over too. A licence
// that is not known makes it NOASSERTION.
func declared(files []*file, folder string) string {
	var ids []string
	for _, f := range files {
		if !strings.HasPrefix(f.name, folder+"/") || !isLicence(path.Base(f.name)) {
			continue
		}
		if len(f.licences) == 0 {
			return noAssertion
		}
		ids = append(ids, f.licences...)
	}
	slices.Sort(ids)
	return cmp.Or(strings.Join(slices.Compact(ids), " AND "), noAssertion)
}
