package image

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ParseIndex parses an index, ParseManifest a manifest, ParseConfig the config of an image.
// The error is [ErrCorrupt] for a document that programs may read differently: one with
// duplicate keys, with a key that differs in case from the specification (Go's
// encoding/json accepts it, others do not), with invalid UTF-8, or with trailing data.
func ParseIndex(data []byte) (*v1.IndexManifest, error) { return parse[v1.IndexManifest](data) }
func ParseManifest(data []byte) (*v1.Manifest, error)   { return parse[v1.Manifest](data) }
func ParseConfig(data []byte) (*v1.ConfigFile, error)   { return parse[v1.ConfigFile](data) }

func parse[T any](data []byte) (*T, error) {
	exact, folded := new(T), new(T)
	options := json.JoinOptions(jsonv1.DefaultOptionsV1(), jsonv1.ReportErrorsWithLegacySemantics(false),
		jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))
	err := json.Unmarshal(data, exact, options, json.MatchCaseInsensitiveNames(false))
	if err == nil {
		err = json.Unmarshal(data, folded, options, json.MatchCaseInsensitiveNames(true))
	}
	if err == nil && !reflect.DeepEqual(exact, folded) {
		err = errors.New("a key differs in case from the specification")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return exact, nil
}

// MediaType is the media type that a manifest or index has in itself, or else the known
// one, of its descriptor. The error is [ErrCorrupt] for a document that programs may read
// differently, as of [ParseIndex], if the two types differ, and for a document that is both
// an index and an image.
// Source: CVE-2021-41190, https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh.
func MediaType(document []byte, known types.MediaType) (types.MediaType, error) {
	m, err := parse[struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests jsontext.Value  `json:"manifests"`
		Config    jsontext.Value  `json:"config"`
		Layers    jsontext.Value  `json:"layers"`
		FSLayers  jsontext.Value  `json:"fsLayers"`
	}](document)
	if err != nil {
		return "", err
	}
	named := m.MediaType
	switch {
	case named != "" && named != known && (known.IsIndex() || known.IsImage()):
		return "", fmt.Errorf("%w: its media type is %s, its descriptor says %s", ErrCorrupt, named, known)
	case named != "":
	case known != "":
		named = known
	case m.Manifests != nil:
		named = types.OCIImageIndex
	case m.Layers != nil:
		named = types.OCIManifestSchema1
	default:
		return "an unknown document", nil
	}
	index, img := m.Manifests != nil, m.Config != nil || m.Layers != nil || m.FSLayers != nil
	if index && img || named.IsIndex() && img || named.IsImage() && index {
		return "", fmt.Errorf("%w: %s with keys of both an index and an image", ErrCorrupt, named)
	}
	return named, nil
}
