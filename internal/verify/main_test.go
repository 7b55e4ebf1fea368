package verify

import (
	"os"
	"testing"

	"github.com/xavieralpha/derper/internal/program"
)

func TestMain(m *testing.M) {
	program.Init()
	os.Exit(m.Run())
}
