package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/sign"
)

// writeTests writes the results of tests to a file, for readTests.
func writeTests(file string, list []attest.Tests) error {
	data, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = atomicfile.Write(file, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("--results: %w", err)
	}
	return nil
}

// readTests reads the results of tests from a file, "" for none, and finds for each of images
// those that are of it. Results of what is no image of any of them are refused.
func readTests(file string, images []*sign.Image) ([][]attest.Tests, error) {
	tests := make([][]attest.Tests, len(images))
	if file == "" {
		return tests, nil
	}
	data, err := os.ReadFile(file)
	var list []attest.Tests
	if err == nil {
		list, err = attest.ParseTests(data)
	}
	if err != nil {
		return nil, cli.Failed(fmt.Errorf("--tests %s: %w", file, err), "it is for what "+self()+" test --results wrote")
	}
	for _, t := range list {
		err := attest.ErrOtherImage
		for i, img := range images {
			var subjects []attest.Subject
			if subjects, err = attest.Subjects(img.Index); err == nil {
				_, err = attest.Tested(subjects, t)
			}
			if err == nil {
				tests[i] = append(tests[i], t)
				break
			}
			if !errors.Is(err, attest.ErrOtherImage) {
				break
			}
		}
		if err != nil {
			return nil, explain(fmt.Errorf("--tests %s: %w", file, err), hints{{is(attest.ErrOtherImage), "test what is to be signed: " + self() + " test --platform all --results " + file}})
		}
	}
	return tests, nil
}
