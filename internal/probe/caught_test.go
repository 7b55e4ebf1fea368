package probe

import (
	"errors"
	"testing"

	"tailscale.com/util/must"
)

// TestCaught guards against a case that goes on after its first error, and against a
// mistake in the suite that is taken for one of the image.
func TestCaught(t *testing.T) {
	want := errors.New("broken")
	went := false
	if err := Caught(func() {
		must.Get(0, want)
		went = true
	}); err != want || went {
		t.Errorf("%v, want %v; went on: %v", err, want, went)
	}
	if err := Caught(func() { must.Do(nil) }); err != nil {
		t.Error(err)
	}
	defer func() {
		if r := recover(); r != "mistake" {
			t.Errorf("recovered %v", r)
		}
	}()
	Caught(func() { panic("mistake") })
	t.Error("a panic was taken for an error of the case")
}
