package vex

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// Scans are those of the programs of a lock, each once.
type Scans []*Scan

// Report is what they say of a variant of the lock: of its programs, and of the entrypoint. Scans
// of another lock are refused: they would say of older programs what is true of newer ones.
func (s Scans) Report(in lock.Inputs, variant string) (*Report, error) {
	of, err := in.Of(variant)
	if err != nil {
		return nil, err
	}
	names := append([]string{plan.Entrypoint}, of.Variant().Programs...)
	var list []*Scan
	for _, name := range names {
		i := slices.IndexFunc(s, func(scan *Scan) bool { return scan.Program == name })
		if i < 0 {
			return nil, fmt.Errorf("variant %s: no scan of its program %s", variant, name)
		}
		if is := s[i]; is.Tailscale != in.Tailscale.Version || is.Go != in.Go.Version {
			return nil, fmt.Errorf("the scan of %s is of tailscale %s, compiled by %s, and the lock has %s and %s", name, is.Tailscale, is.Go, in.Tailscale.Version, in.Go.Version)
		}
		list = append(list, s[i])
	}
	return NewReport(of, list...), nil
}

// Write writes the scans to a file.
func (s Scans) Write(name string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(name, append(data, '\n'))
}

// ReadScans reads what [Scans.Write] wrote.
func ReadScans(name string) (s Scans, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("scans: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("scans: %s has none: %w", name, err)
	}
	return s, nil
}
