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

// TestWhatIsLeft guards against parts of a secret that stay, and against errors that are
// changed without need.
func TestWhatIsLeft(t *testing.T) {
	long := strings.Repeat("é", Longest)
	for _, test := range []struct {
		name    string
		secrets []string
		said    string
		want    string
	}{
		{"no secrets", nil, "GET https://r.example: 403", "GET https://r.example: 403"},
		{"an empty one", []string{""}, "GET https://r.example: 403", "GET https://r.example: 403"},
		{"one in another", []string{"abc", "abcdef"}, "said abcdef and abc", "said [secret] and [secret]"},
		{"the other way round", []string{"abcdef", "abc"}, "said abcdef and abc", "said [secret] and [secret]"},
		{"twice", []string{"abc", "abc"}, "abc, abcabc", "[secret], [secret][secret]"},
		{"a page", nil, "403:\n<html>\n\t<p>no\n", "403: <html> <p>no"},
		{"cut in a letter", nil, "x" + long, "x" + strings.Repeat("é", Longest/2-1) + "…"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s Secrets
			s.Add(test.secrets...)
			cause := errors.New(test.said)
			got := s.Error(cause)
			if got.Error() != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if !errors.Is(got, cause) || test.said == test.want && got != cause {
				t.Errorf("%#v is not the error that it was", got)
			}
		})
	}
	if err := new(Secrets).Error(nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}
