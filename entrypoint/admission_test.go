package main

import (
	"os"
	"path/filepath"
	"testing"

	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/entrypoint/admission"
)

// The mistake it guards: answers to derper's admission requests that the real
// derper takes for a yes, or a no, to another node.
func TestAdmissionNodes(t *testing.T) {
	known, stranger := key.NewNode(), key.NewNode()
	path := filepath.Join(t.TempDir(), "nodes")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(known.Public().String() + " # phone\n")
	nodes := admission.NewNodes(path, t.Logf)
	url, err := nodes.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer nodes.Close()
	s := start(t, t.TempDir(), append(ports(t), "VERIFY_CLIENTS=false", "VERIFY_FAIL_OPEN=false", "VERIFY_CLIENT_URL="+url))
	s.healthy(t)
	if err := connect(t, s, known); err != nil {
		t.Errorf("a node of the list: %v", err)
	}
	if err := connect(t, s, stranger); err == nil {
		t.Error("a stranger is let in")
	}
	write(stranger.Public().String() + "\n")
	if err := connect(t, s, stranger); err != nil {
		t.Errorf("a node that was added: %v", err)
	}
	if err := connect(t, s, known); err == nil {
		t.Error("a node that was taken off the list is let in")
	}
}
