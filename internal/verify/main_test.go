package verify

import (
	"os"
	"testing"

	"github.com/xavieralpha/derper/internal/verify/diff"
)

func TestMain(m *testing.M) {
	diff.Init()
	os.Exit(m.Run())
}
