package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The mistake it guards: a log that cannot be written, as on a full disk, after which
// derper's output was read no more, and derper ended with its next line, again and again.
func TestLogFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	defer func(old *os.File) { os.Stderr = old }(os.Stderr)
	os.Stderr = full
	p := new(pod)
	if err := p.follow(); err != nil {
		t.Fatal(err)
	}
	p.output.SetWriteDeadline(time.Now().Add(10 * time.Second))
	for range 100 { // more than the pipe holds
		if _, err := p.output.WriteString(strings.Repeat("x", 8<<10) + "\n"); err != nil {
			t.Fatalf("derper's output is not read: %v", err)
		}
	}
	p.output.Close()
	<-p.drained
}
