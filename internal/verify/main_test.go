package verify

import (
	"os"
	"testing"

	"github.com/xavieralpha/derper/internal/gobinary"
)

func TestMain(m *testing.M) {
	gobinary.Init()
	os.Exit(m.Run())
}
