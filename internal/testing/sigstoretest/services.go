package sigstoretest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	"github.com/digitorus/timestamp"
	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekorpb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore/pkg/signature"
	f_log "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
)

// serveToken answers as GitHub does inside a job.
func (s *Sigstore) serveToken(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Authorization") != "Bearer "+s.Bearer || req.URL.Query().Get("audience") != "sigstore" || req.URL.Query().Get("api-version") != "2.0" {
		http.Error(w, "no: "+req.Header.Get("Authorization"), http.StatusUnauthorized)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": s.IDToken})
}

// serveFulcio certifies a key, after its owner has signed the token's subject.
func (s *Sigstore) serveFulcio(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	strict := s.strict
	s.mu.Unlock()
	if strict || req.Header.Get("Authorization") != "Bearer "+s.IDToken {
		http.Error(w, "no such token: "+req.Header.Get("Authorization"), http.StatusUnauthorized)
		return
	}
	var in struct {
		PublicKeyRequest struct {
			PublicKey         struct{ Content string }
			ProofOfPossession []byte
		}
	}
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cert, err := s.certify([]byte(in.PublicKeyRequest.PublicKey.Content), in.PublicKeyRequest.ProofOfPossession)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var chain []string
	for _, der := range [][]byte{cert, s.fulcio.cert.Raw, s.fulcio.root.Raw} {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	json.NewEncoder(w).Encode(map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": chain}}})
}

// certify makes a certificate with a timestamp of the certificate log in it.
func (s *Sigstore) certify(keyPEM, proof []byte) ([]byte, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("no key")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	subject := sha256.Sum256([]byte("repo:xavieralpha/derper:ref:refs/heads/main"))
	if !ok || !ecdsa.VerifyASN1(key, subject[:], proof) {
		return nil, errors.New("no proof of possession")
	}
	uri, err := url.Parse(s.Identity)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	extensions, err := s.run.extensions()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:    serial,
		URIs:            []*url.URL{uri},
		NotBefore:       time.Now().Add(-time.Second),
		NotAfter:        time.Now().Add(10 * time.Minute),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: extensions,
	}
	before, err := x509.CreateCertificate(rand.Reader, template, s.fulcio.cert, key, s.fulcio.key)
	if err != nil {
		return nil, err
	}
	list, err := s.logCertificate(before)
	if err != nil {
		return nil, err
	}
	// Source: RFC 6962, 3.3.
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: list})
	return x509.CreateCertificate(rand.Reader, template, s.fulcio.cert, key, s.fulcio.key)
}

// extensions are what Fulcio writes into a certificate for a run on GitHub, so far as a
// verifier looks at it. Those up to 6 are deprecated, and the ones that cosign's flags are
// about.
// Source: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md.
func (r Run) extensions() (list []pkix.Extension, err error) {
	name := r.Repository
	if u, err := url.Parse(r.Repository); err == nil {
		name = strings.TrimPrefix(u.Path, "/")
	}
	for _, e := range []struct {
		id    int
		value string
	}{{5, name}, {6, r.Ref}, {8, Issuer}, {9, r.Signer}, {12, r.Repository}, {14, r.Ref}, {18, r.Workflow}} {
		if e.value == "" {
			continue
		}
		raw := []byte(e.value)
		if e.id >= 8 {
			if raw, err = asn1.MarshalWithParams(e.value, "utf8"); err != nil {
				return nil, err
			}
		}
		list = append(list, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, e.id}, Value: raw})
	}
	return list, nil
}

// logCertificate makes the list of timestamps for a certificate that has none yet.
// Source: RFC 6962, 3.2.
func (s *Sigstore) logCertificate(der []byte) ([]byte, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, Timestamp: uint64(time.Now().UnixMilli())}
	copy(sct.LogID.KeyID[:], logID(s.ctLog))
	data, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version:  ct.V1,
		LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: sct.Timestamp,
			EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{
				IssuerKeyHash:  sha256.Sum256(s.fulcio.cert.RawSubjectPublicKeyInfo),
				TBSCertificate: cert.RawTBSCertificate,
			},
		},
	}})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	sig, err := ecdsa.SignASN1(rand.Reader, s.ctLog, sum[:])
	if err != nil {
		return nil, err
	}
	sct.Signature = ct.DigitallySigned{Algorithm: tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}, Signature: sig}
	one, err := tls.Marshal(sct)
	if err != nil {
		return nil, err
	}
	list, err := tls.Marshal(ctx509.SignedCertificateTimestampList{SCTList: []ctx509.SerializedSCT{{Val: one}}})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(list)
}

// serveRekor logs an entry, each in a tree of its own.
func (s *Sigstore) serveRekor(w http.ResponseWriter, req *http.Request) {
	entry, err := s.logEntry(req.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusCreated)
	w.Write(entry)
}

func (s *Sigstore) logEntry(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	in := new(rekorpb.CreateEntryRequest)
	if err := protojson.Unmarshal(data, in); err != nil {
		return nil, err
	}
	wanted := in.GetHashedRekordRequestV002()
	if wanted == nil {
		return nil, fmt.Errorf("no entry of type hashedrekord")
	}
	raw, err := protojson.Marshal(&rekorpb.Entry{
		ApiVersion: "0.0.2",
		Kind:       "hashedrekord",
		Spec: &rekorpb.Spec{Spec: &rekorpb.Spec_HashedRekordV002{HashedRekordV002: &rekorpb.HashedRekordLogEntryV002{
			Data:      &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: wanted.Digest},
			Signature: wanted.Signature,
		}}},
	})
	if err != nil {
		return nil, err
	}
	leaf, err := jsoncanonicalizer.Transform(raw)
	if err != nil {
		return nil, err
	}
	hash := rfc6962.DefaultHasher.HashLeaf(leaf)
	signer, err := signature.LoadECDSASignerVerifier(s.rekor, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	noteSigner, err := rekornote.NewNoteSigner(context.Background(), logHost, signer)
	if err != nil {
		return nil, err
	}
	checkpoint, err := note.Sign(&note.Note{Text: string(f_log.Checkpoint{Origin: logHost, Size: 1, Hash: hash}.Marshal())}, noteSigner)
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(&protorekor.TransparencyLogEntry{
		LogId:             &protocommon.LogId{KeyId: logID(s.rekor)},
		KindVersion:       &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		InclusionProof:    &protorekor.InclusionProof{TreeSize: 1, RootHash: hash, Checkpoint: &protorekor.Checkpoint{Envelope: string(checkpoint)}},
		CanonicalizedBody: leaf,
	})
}

// serveTimestamp says what time it is. Source: RFC 3161.
func (s *Sigstore) serveTimestamp(w http.ResponseWriter, req *http.Request) {
	data, err := io.ReadAll(req.Body)
	var in *timestamp.Request
	if err == nil {
		in, err = timestamp.ParseRequest(data)
	}
	var answer []byte
	if err == nil {
		now := timestamp.Timestamp{
			HashAlgorithm: in.HashAlgorithm,
			HashedMessage: in.HashedMessage,
			Time:          time.Now(),
			Policy:        asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2},
		}
		answer, err = now.CreateResponseWithOpts(s.tsa.leaf, s.tsa.leafKey, crypto.SHA256)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.Write(answer)
}
