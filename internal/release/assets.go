package release

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper/internal/lock"
)

// assetPatterns match what a release's folder has to be kept with the release: reports of the
// tests, what was found of known vulnerabilities, and what is attested of each variant.
var assetPatterns = []string{
	testName + "-*.xml", scansName,
	DocumentsName + "/*.json", DocumentsName + "-*/*.json",
}

// Assets are the files of a release, by their names: of those that a step made and a folder
// has, all, and the lock as it is recorded. A document of a variant that is not the default
// one begins with its name: nonroot-linux-amd64.spdx.json.
func Assets(folder string, l *lock.Lock) (map[string][]byte, error) {
	recorded, err := l.Bytes()
	if err != nil {
		return nil, err
	}
	assets := map[string][]byte{lock.File: recorded}
	for _, pattern := range assetPatterns {
		names, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			asset := filepath.Base(name)
			if _, variant, ok := strings.Cut(filepath.Base(filepath.Dir(name)), DocumentsName+"-"); ok {
				asset = variant + "-" + asset
			}
			assets[asset] = content
		}
	}
	return assets, nil
}
