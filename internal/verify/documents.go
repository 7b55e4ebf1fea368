package verify

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

var indexIn = regexp.MustCompile(`^\.(?:rootfs\.diff_ids|layers)\[(\d+)\]`)

// follows reports whether a change in a config or manifest is only that of a layer
// that differs.
func (c *comparison) follows(path string) bool {
	m := indexIn.FindStringSubmatch(path)
	if m == nil {
		return strings.HasPrefix(path, ".history[") && len(c.want.contents) != len(c.got.contents)
	}
	if len(c.want.contents) != len(c.got.contents) {
		return true
	}
	i, err := strconv.Atoi(m[1])
	return err == nil && c.layerDiffers[i]
}

// documents compares the configs and the manifests.
func (c *comparison) documents() {
	config := compareDocuments(LevelConfig, "config", c.want.config, c.got.config, c.follows)
	manifest := Check{Level: LevelManifest, Name: "manifest", Result: Skip, Rebuilt: c.want.digest, Note: "a docker archive has none"}
	if c.got.manifest != nil {
		manifest = compareDocuments(LevelManifest, "manifest", c.want.manifest, c.got.manifest, func(path string) bool {
			return c.follows(path) || config.failed() && (path == ".config.digest" || path == ".config.size")
		})
	}
	c.checks = append(c.checks, config, manifest)
}

// compareDocuments compares two documents. Changes that follow from what they name count
// for nothing when there are others.
func compareDocuments(level Level, name string, want, got []byte, follows func(path string) bool) Check {
	check := compared(level, name, digestOf(want), digestOf(got))
	if !check.failed() {
		return check
	}
	changes, err := diff.JSON(want, got)
	if err != nil {
		check.Note = diff.Printable(err.Error())
		return check
	}
	var lines []string
	for _, change := range changes {
		if follows == nil || !follows(change.Path) {
			lines = append(lines, change.String())
		}
	}
	check.Note, check.Details, check.Follows = first(lines), few(lines), len(lines) == 0
	return check
}

// first is a list in one line.
func first(lines []string) string {
	if len(lines) > 1 {
		return fmt.Sprintf("%s; and %d more", lines[0], len(lines)-1)
	}
	return strings.Join(lines, "")
}

// few is a list that a person can read.
func few(lines []string) []string {
	const limit = 40
	if len(lines) > limit {
		lines = append(lines[:limit:limit], fmt.Sprintf("and %d more", len(lines)-limit))
	}
	return lines
}

// indexesDiffer says how two indexes differ, as far as they speak of known platforms. It
// says nothing when only the rest of them differs, or what follows from a platform that
// failed.
func indexesDiffer(want, got []byte, known []lock.Platform, failed map[string]bool) (note string, details []string, err error) {
	var docs [2][]byte
	var orders [2][]string
	for i, data := range [][]byte{want, got} {
		if docs[i], orders[i], err = byPlatform(data, known); err != nil {
			return "", nil, err
		}
	}
	parts := compareDocuments(LevelIndex, "index", docs[0], docs[1], func(path string) bool {
		for name := range failed {
			at, about := fmt.Sprintf(".manifests[%q]", name), fmt.Sprintf(".manifests[%q]", attestationOf+name)
			switch {
			case path == at, path == at+".digest", path == at+".size",
				path == about, path == about+".digest", path == about+".size", strings.HasPrefix(path, about+".annotations"):
				return true
			}
		}
		return path == "." // written in another way: byPlatform did
	})
	// What is missing, or there besides, is said elsewhere.
	order := common(orders[1], orders[0])
	if parts.Note == "" && !slices.Equal(common(orders[0], orders[1]), order) {
		parts.Note = "the platforms are in another order: " + strings.Join(order, ", ")
	}
	return parts.Note, parts.Details, nil
}

// common are the names of a list that another has, too.
func common(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return !slices.Contains(other, name) })
}

// attestationOf begins the name of an attestation in byPlatform.
const attestationOf = "attestation of "

// byPlatform is an index with its manifests in an object, by platform, and their order.
// What is of no known platform is left out.
func byPlatform(data []byte, known []lock.Platform) ([]byte, []string, error) {
	index, err := image.ParseIndex(data)
	if err != nil {
		return nil, nil, err
	}
	var doc map[string]json.RawMessage
	var list []json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(doc["manifests"], &list); err != nil {
		return nil, nil, err
	}
	manifests := map[string]json.RawMessage{}
	platforms := map[string][]string{} // by the digest of an image, which may be there twice
	var order []string
	for i, d := range index.Manifests {
		about, attests := image.Attests(d, index.Manifests)
		var name string
		if digest := d.Digest.String(); attests && len(platforms[about]) > 0 {
			name, platforms[about] = platforms[about][0], platforms[about][1:]
		} else if !attests && d.Platform != nil {
			name = platformName(*d.Platform)
			platforms[digest] = append(platforms[digest], name)
		}
		isKnown := slices.Contains(known, lock.Platform(name))
		if attests {
			name = attestationOf + name
		}
		if isKnown && manifests[name] == nil {
			manifests[name] = list[i]
			order = append(order, name)
		}
	}
	raw, err := json.Marshal(manifests)
	if err != nil {
		return nil, nil, err
	}
	doc["manifests"] = raw
	data, err = json.Marshal(doc)
	return data, order, err
}
