package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/registry"
)

// predicateType is an annotation by which Trivy finds an OpenVEX document without reading all
// else that is attached.
const predicateType = "in-toto.io/predicate-type"

// replaces reports whether a statement takes the place of older ones of its type. OpenVEX
// documents do: what is known of an image changes while the image does not, and Trivy reads
// the first one that it finds.
func replaces(s attest.Statement) bool { return s.Type == attest.VEX }

// current is the payload of a statement or, if that is newer or says the same but for its date,
// of the newest one of its type that is attached already to what it is about. An older database
// does not take the place of a newer one, and a new date alone is no reason to sign anything.
// One that is not about all that the statement is about does not count: two indexes may have an
// image in common.
func current(s attest.Statement, trust *Trust, known []map[v1.Hash][]*registry.Artifact) []byte {
	var payload []byte
	var newest readStatement
	for _, of := range known {
		for _, subject := range s.Subjects {
			about := subject.Descriptor.Digest
			for _, a := range of[about] {
				v, err := trust.Verify(a.Layers[0], about)
				if err != nil || v.Type != s.Type || !aboutAll(a.Layers[0], trust, s.Subjects) {
					continue
				}
				if read := readVEX(v.Statement); payload == nil || read.date.After(newest.date) {
					payload, newest = v.Statement, read
				}
			}
		}
	}
	if now := readVEX(s.Payload); payload == nil || !newest.date.After(now.date) && !reflect.DeepEqual(newest.rest, now.rest) {
		return s.Payload
	}
	return payload
}

// aboutAll reports whether a bundle is about all of the subjects.
func aboutAll(bundle []byte, trust *Trust, subjects []attest.Subject) bool {
	return !slices.ContainsFunc(subjects, func(s attest.Subject) bool {
		_, err := trust.Verify(bundle, s.Descriptor.Digest)
		return err != nil
	})
}

// removeOld removes statements from what is attached to a digest that another of the same type,
// by the same signer, took the place of. It returns how many are gone, and how many the
// registry keeps.
func removeOld(ctx context.Context, r *registry.Repository, s attest.Statement, trust *Trust, about v1.Hash, known []*registry.Artifact) (removed, kept int, err error) {
	for _, a := range known {
		v, verr := trust.Verify(a.Layers[0], about)
		if verr != nil || v.Type != s.Type || bytes.Equal(v.Statement, s.Payload) {
			continue
		}
		switch err := r.Detach(ctx, about, a.Digest); {
		case err == nil:
			removed++
		case errors.Is(err, registry.ErrKept):
			kept++
		default:
			return removed, kept, err
		}
	}
	return removed, kept, nil
}

// A readStatement is a statement with an OpenVEX document: its date, which is the database's,
// and what is left without the date and the ID that follows from it.
type readStatement struct {
	date time.Time
	rest map[string]any
}

func readVEX(statement []byte) (read readStatement) {
	if json.Unmarshal(statement, &read.rest) != nil { // it was signed by ourselves
		return readStatement{rest: map[string]any{"unread": string(statement)}}
	}
	if document, ok := read.rest["predicate"].(map[string]any); ok {
		text, _ := document["timestamp"].(string)
		read.date, _ = time.Parse(time.RFC3339, text)
		delete(document, "timestamp")
		delete(document, "@id")
	}
	return read
}
