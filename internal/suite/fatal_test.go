package suite

import (
	"errors"
	"testing"
)

// TestCaught guards against a case that goes on after its first error, and against a
// mistake in the suite that is taken for one of the image.
func TestCaught(t *testing.T) {
	want := errors.New("broken")
	went := false
	if err := caught(func() {
		get(0, want)
		went = true
	}); err != want || went {
		t.Errorf("%v, want %v; went on: %v", err, want, went)
	}
	if err := caught(func() { must(nil) }); err != nil {
		t.Error(err)
	}
	defer func() {
		if r := recover(); r != "mistake" {
			t.Errorf("recovered %v", r)
		}
	}()
	caught(func() { panic("mistake") })
	t.Error("a panic was taken for an error of the case")
}
