package redact

import (
	"errors"
	"strings"
	"testing"
)

// TestSecretsAreBlackened guards every form in which a secret was sent.
func TestSecretsAreBlackened(t *testing.T) {
	var s Secrets
	s.Add("tok/en+1", "pass word")
	cause := errors.New("cause")
	err := s.Error(errors.Join(cause, errors.New("a tok/en+1 b tok%2Fen%2B1 c pass word d pass+word e cGFzcyB3b3Jk\n f")))
	if got, want := err.Error(), "cause a [secret] b [secret] c [secret] d [secret] e [secret] f"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	err = s.Error(errors.New("no token in bearer response:\n{\"refresh_token\":\"never seen\"}"))
	if strings.Contains(err.Error(), "never seen") {
		t.Error(err)
	}
	if err := s.Error(errors.New(strings.Repeat("long ", 10_000))); len(err.Error()) > Longest+3 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}
