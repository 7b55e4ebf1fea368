package lock

import (
	"bytes"
	"testing"
)

// FuzzParse guards that what is read is what is written: a lock that Parse accepts has a
// canonical form, which is read as the same lock and written as the same bytes.
func FuzzParse(f *testing.F) {
	l := sample()
	f.Add(sampleBytes(f))
	l.Inputs.Platforms, l.Outputs, l.Withdrawn = l.Inputs.Platforms[:1], nil, []string{"v1.102.3", "1.102.3-r1"}
	l.Inputs.Variants = append(l.Inputs.Variants, Variant{
		Name: "debug", Programs: []string{"derper"}, Suffix: "-debug", User: "65532:65532", Budget: 1,
		Files: []Entry{{Path: "etc/x", Mode: "0644", Text: "x"}, {Path: "y/", Mode: "01777", Owner: 1}},
	})
	data, err := l.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema": 1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a message")
			}
			return
		}
		first, err := l.Bytes()
		if err != nil {
			t.Fatalf("is read, and cannot be written: %v", err)
		}
		again, err := Parse(first)
		if err != nil {
			t.Fatalf("is written, and cannot be read: %v\n%s", err, first)
		}
		if second, err := again.Bytes(); err != nil || !bytes.Equal(first, second) {
			t.Errorf("is written in two ways (%v):\n%s\n%s", err, first, second)
		}
	})
}
