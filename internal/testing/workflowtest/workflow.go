// Package workflowtest reads this project's workflows and checks that they keep to a
// policy: what they may do, and which command lines they have. It carries out nothing.
package workflowtest

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
)

// Dir is where workflows are, as seen from the root of the repository.
const Dir = ".github/workflows"

// A File is a workflow.
type File struct {
	// Name is its base name, as release.yml.
	Name     string
	Source   []byte
	Workflow *actionlint.Workflow
}

// Load reads the workflows of the repository in the folder root, sorted by name.
func Load(root string) ([]*File, error) {
	names, err := filepath.Glob(filepath.Join(root, Dir, "*.yml"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no workflows", filepath.Join(root, Dir))
	}
	var files []*File
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := Parse(filepath.Base(name), source)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Parse reads one workflow.
func Parse(name string, source []byte) (*File, error) {
	w, errs := actionlint.Parse(source)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", name, errs[0])
	}
	return &File{Name: name, Source: source, Workflow: w}, nil
}

// Jobs are a workflow's jobs, in the order of the file.
func (f *File) Jobs() []*actionlint.Job {
	return slices.SortedFunc(maps.Values(f.Workflow.Jobs), func(a, b *actionlint.Job) int {
		return cmp.Compare(a.Pos.Line, b.Pos.Line)
	})
}

// A Command is the command line of a step.
type Command struct {
	// Where is file/job/step, for messages; Job is the step's job.
	Where string
	Job   *actionlint.Job
	// Words are the command's, with its variables filled in.
	Words []string
}

// Commands are the command lines of all steps of a workflow, in which samples stand in
// for the values of variables. It is for lines that are words and variables in double
// quotes; every variable must be set by the step, its job or the workflow.
func (f *File) Commands(samples map[string]string) ([]Command, error) {
	var list []Command
	for _, job := range f.Jobs() {
		for _, step := range job.Steps {
			run, ok := step.Exec.(*actionlint.ExecRun)
			if !ok {
				continue
			}
			where := f.Name + "/" + job.ID.Value + "/" + stepName(step)
			words, err := split(run.Run.Value, func(name string) (string, error) {
				set := slices.ContainsFunc([]*actionlint.Env{f.Workflow.Env, job.Env, step.Env}, func(env *actionlint.Env) bool {
					return env != nil && env.Vars[strings.ToLower(name)] != nil
				})
				value, ok := samples[name]
				if !set || !ok {
					return "", fmt.Errorf("$%s is not set, or has no sample", name)
				}
				return value, nil
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
			list = append(list, Command{where, job, words})
		}
	}
	return list, nil
}

// split splits a command line into words as a shell does, with variables filled in.
func split(line string, value func(name string) (string, error)) (words []string, err error) {
	for _, word := range strings.Fields(line) {
		if quoted, ok := strings.CutPrefix(word, `"`); ok {
			if word, ok = strings.CutSuffix(quoted, `"`); !ok {
				return nil, fmt.Errorf("%s: a word with a space in it, or half quoted", line)
			}
		} else if strings.Contains(word, "$") {
			return nil, fmt.Errorf("%s: %s is not in double quotes", line, word)
		}
		word = os.Expand(word, func(name string) string {
			v, verr := value(name)
			if verr != nil {
				err = fmt.Errorf("%s: %w", line, verr)
			}
			return v
		})
		words = append(words, word)
	}
	return words, err
}

// stepName is the name that GitHub shows.
func stepName(s *actionlint.Step) string {
	if s.Name != nil {
		return s.Name.Value
	}
	switch e := s.Exec.(type) {
	case *actionlint.ExecAction:
		return "Run " + e.Uses.Value
	case *actionlint.ExecRun:
		return "Run " + e.Run.Value
	}
	return ""
}
