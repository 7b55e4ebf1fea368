package lock

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// Platform is a platform as the OCI image specification and Docker write it:
// os/architecture or os/architecture/variant, as linux/arm/v7.
type Platform string

// Known are the platforms that the image can be built for: those of the design,
// each with the Go settings that stand for it. Of linux/arm the best comes first: who
// finds no entry of its own variant takes the first one (docs/image.md, Platforms).
var Known = []Platform{
	"linux/amd64", "linux/386", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5",
	"linux/ppc64le", "linux/riscv64", "linux/s390x", "linux/loong64",
}

// ParsePlatform reads a platform and refuses one that is not among [Known]. It
// takes Docker's longer names for two of them: linux/arm64/v8 and linux/arm,
// which is linux/arm/v7.
func ParsePlatform(s string) (Platform, error) {
	switch s {
	case "linux/arm64/v8":
		s = "linux/arm64"
	case "linux/arm":
		s = "linux/arm/v7"
	}
	if p := Platform(s); slices.Contains(Known, p) {
		return p, nil
	}
	names := make([]string, len(Known))
	for i, p := range Known {
		names[i] = string(p)
	}
	return "", fmt.Errorf("unknown platform %q: known are %s", s, strings.Join(names, ", "))
}

// ParsePlatforms reads a list of platforms, separated by commas, in which host is
// this machine's and all are all of those given. It returns them in the order of all,
// each once, and refuses others.
func ParsePlatforms(list string, all []Platform) ([]Platform, error) {
	var chosen []Platform
	for _, word := range strings.Split(list, ",") {
		switch word = strings.TrimSpace(word); word {
		case "all":
			chosen = append(chosen, all...)
			continue
		case "host":
			word = "linux/" + runtime.GOARCH
		}
		p, err := ParsePlatform(word)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, p) {
			return nil, fmt.Errorf("%s is not in the lock: it has %v", p, all)
		}
		chosen = append(chosen, p)
	}
	return slices.DeleteFunc(slices.Clone(all), func(p Platform) bool { return !slices.Contains(chosen, p) }), nil
}

// OS, Arch and Variant are the operating system, the architecture and its variant, as v7
// or "", in Go's and in OCI's words.
func (p Platform) OS() string      { return p.part(0) }
func (p Platform) Arch() string    { return p.part(1) }
func (p Platform) Variant() string { return p.part(2) }

func (p Platform) part(i int) string {
	if parts := strings.Split(string(p), "/"); i < len(parts) {
		return parts[i]
	}
	return ""
}

// Slug is the platform as a file name: linux-arm-v7.
func (p Platform) Slug() string { return strings.ReplaceAll(string(p), "/", "-") }
