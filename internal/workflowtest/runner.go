package workflowtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
)

// A Runner carries out workflows on this machine, one job after the other.
type Runner struct {
	// Files are the workflows, which may call each other.
	Files []*File
	// Dir is a folder for workspaces and artifacts.
	Dir string
	// Checkout puts the repository into a folder, as actions/checkout does.
	Checkout func(dir string) error
	// Job readies another machine and returns its environment, as name=value; dir is
	// a folder of the job's own, outside of its workspace, grants are its permissions.
	Job func(dir string, grants map[string]string) ([]string, error)
	// Token makes the token of a job with these permissions.
	Token func(grants map[string]string) string
	// GitHub is the context github; Vars and Secrets are what the repository has.
	GitHub, Vars, Secrets map[string]any
	// Before and After are called around each step that is a command line; an error
	// fails the step, before anything of it is done or when all of it is.
	Before, After func(step Step) error
	// Running is called before each step with the jobs up to now, the last of which
	// is under way.
	Running func(jobs []*Job)

	jobs     []*Job
	count    int
	uploaded map[string]bool // artifacts
}

// A Step is a step that is a command line.
type Step struct {
	// Job is the name of its job, as "stable / push", Name its own.
	Job, Name string
	// Command is its command line.
	Command string
}

func (s Step) String() string { return s.Job + ": " + s.Name }

// A Job is a job that was begun.
type Job struct {
	Name string
	// Result is success or failure, and empty while the job is under way.
	Result string
	// Steps are the names of its steps, Failed that of the one that failed.
	Steps  []string
	Failed string
	// Log is what its commands wrote.
	Log string
}

// Run carries out a workflow with the inputs it is dispatched with. It returns the
// jobs that were begun; their names have the matrix's values in no other way than
// their order. The error is of the workflow or of this runner: a job that fails is none.
func (r *Runner) Run(ctx context.Context, name string, inputs map[string]any) ([]*Job, error) {
	r.jobs, r.count, r.uploaded = nil, 0, map[string]bool{}
	if err := os.RemoveAll(r.artifacts()); err != nil {
		return nil, err
	}
	_, _, err := r.workflow(ctx, name, "", inputs, r.Secrets, nil)
	return r.jobs, err
}

func (r *Runner) artifacts() string { return filepath.Join(r.Dir, "artifacts") }

// workflow carries out one workflow, whose jobs' names begin with prefix. None of
// them may have more than the caller has; nil is for no caller.
func (r *Runner) workflow(ctx context.Context, name, prefix string, inputs, secrets map[string]any, caller map[string]string) (result string, outputs map[string]any, err error) {
	i := slices.IndexFunc(r.Files, func(f *File) bool { return f.Name == name })
	if i < 0 {
		return "", nil, fmt.Errorf("%s: no such workflow", name)
	}
	s := &scope{file: r.Files[i]}
	base := map[string]any{"github": r.GitHub, "vars": r.Vars, "inputs": inputs, "secrets": secrets}
	needs := map[string]any{}
	result = "success"
	for _, job := range s.file.Jobs() {
		for scope, right := range grantsOf(job) {
			if has := caller[scope]; caller != nil && has != right && has != "write" {
				return "", nil, fmt.Errorf("%s%s: wants %s: %s, and its caller has %q", prefix, job.ID.Value, scope, right, has)
			}
		}
	}
	for _, job := range inOrder(s.file.Jobs()) {
		s.contexts = maps.Clone(base)
		own := map[string]any{}
		s.failed = false
		skipped := false
		for _, n := range job.Needs {
			own[n.Value] = needs[strings.ToLower(n.Value)]
			switch member(own[n.Value], "result") {
			case "success":
			case "skipped":
				skipped = true
			default:
				s.failed = true
			}
		}
		s.contexts["needs"] = own
		s.failed = s.failed || upstreamFailed(job, s.file.Workflow.Jobs, needs)
		run, err := s.condition(job.If)
		if err != nil {
			return "", nil, fmt.Errorf("%s: job %s: if: %w", name, job.ID.Value, err)
		}
		// A job whose needs were skipped is skipped, unless its condition looks at that.
		if skipped && (job.If == nil || !strings.Contains(job.If.Value, "()")) {
			run = false
		}
		outcome, values := "skipped", map[string]any{}
		if run {
			if outcome, values, err = r.job(ctx, s, job, prefix); err != nil {
				return "", nil, err
			}
		}
		if outcome == "failure" {
			result = "failure"
		}
		needs[strings.ToLower(job.ID.Value)] = map[string]any{"result": outcome, "outputs": values}
	}
	return result, nil, nil
}

// upstreamFailed says whether anything failed that the job needs, directly or not.
func upstreamFailed(job *actionlint.Job, all map[string]*actionlint.Job, needs map[string]any) bool {
	for _, n := range job.Needs {
		id := strings.ToLower(n.Value)
		if member(needs[id], "result") == "failure" || upstreamFailed(all[id], all, needs) {
			return true
		}
	}
	return false
}

// inOrder sorts jobs so that each comes after those that it needs.
func inOrder(jobs []*actionlint.Job) (sorted []*actionlint.Job) {
	done := map[string]bool{}
	for len(sorted) < len(jobs) {
		for _, j := range jobs {
			ready := !done[strings.ToLower(j.ID.Value)]
			for _, n := range j.Needs {
				ready = ready && done[strings.ToLower(n.Value)]
			}
			if ready {
				sorted = append(sorted, j)
				done[strings.ToLower(j.ID.Value)] = true
			}
		}
	}
	return sorted
}

// job carries out a job in all its variants; its outputs are the last one's.
func (r *Runner) job(ctx context.Context, s *scope, job *actionlint.Job, prefix string) (result string, outputs map[string]any, err error) {
	title := prefix + job.ID.Value
	if call := job.WorkflowCall; call != nil {
		file, ok := strings.CutPrefix(call.Uses.Value, "./"+Dir+"/")
		if !ok {
			return "", nil, fmt.Errorf("%s: %s is a workflow of another repository", title, call.Uses.Value)
		}
		inputs, secrets := map[string]any{}, map[string]any{}
		for _, in := range call.Inputs {
			if inputs[in.Name.Value], err = s.whole(in.Value.Value); err != nil {
				return "", nil, err
			}
		}
		for _, secret := range call.Secrets {
			if secrets[secret.Name.Value], err = s.text(secret.Value.Value); err != nil {
				return "", nil, err
			}
		}
		return r.workflow(ctx, file, title+" / ", inputs, secrets, grantsOf(job))
	}
	matrices, err := s.matrices(job)
	if err != nil {
		return "", nil, err
	}
	result = "success"
	for _, matrix := range matrices {
		one := &scope{file: s.file, contexts: maps.Clone(s.contexts)}
		one.contexts["matrix"] = matrix
		var outcome string
		if outcome, outputs, err = r.steps(ctx, one, job, title); err != nil {
			return "", nil, err
		}
		if outcome == "failure" {
			result = outcome
		}
	}
	return result, outputs, nil
}

// grantsOf are a job's permissions.
func grantsOf(job *actionlint.Job) map[string]string {
	grants := map[string]string{}
	if job.Permissions != nil {
		for _, p := range job.Permissions.Scopes {
			grants[p.Name.Value] = p.Value.Value
		}
	}
	return grants
}

// whole is text, or the value itself of a string that is one expression.
func (s *scope) whole(in string) (any, error) {
	if expr, ok := strings.CutPrefix(in, "${{"); ok && strings.Count(in, "${{") == 1 {
		if expr, ok = strings.CutSuffix(expr, "}}"); ok {
			return s.value(expr)
		}
	}
	return s.text(in)
}

// machine is where a job's steps run.
type machine struct {
	workspace, temp string
	env             []string
}

func (r *Runner) steps(ctx context.Context, s *scope, job *actionlint.Job, title string) (result string, outputs map[string]any, err error) {
	r.count++
	temp := filepath.Join(r.Dir, fmt.Sprintf("job-%d", r.count))
	m := &machine{workspace: filepath.Join(temp, "workspace"), temp: temp}
	defer os.RemoveAll(temp)
	if err := os.MkdirAll(m.workspace, 0o755); err != nil {
		return "", nil, err
	}
	if m.env, err = r.Job(temp, grantsOf(job)); err != nil {
		return "", nil, err
	}
	github := maps.Clone(r.GitHub)
	github["token"] = r.Token(grantsOf(job))
	s.contexts["github"] = github
	workflow, err := s.env(s.file.Workflow.Env, nil)
	if err != nil {
		return "", nil, err
	}
	inJob, err := s.env(job.Env, workflow)
	if err != nil {
		return "", nil, err
	}
	j := &Job{Name: title}
	r.jobs = append(r.jobs, j)
	steps := map[string]any{}
	s.contexts["steps"] = steps
	for _, step := range job.Steps {
		name := stepName(step)
		run, err := s.condition(step.If)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %s: if: %w", title, name, err)
		}
		if !run {
			continue
		}
		env, err := s.env(step.Env, inJob)
		if err != nil {
			return "", nil, err
		}
		j.Steps = append(j.Steps, name)
		if r.Running != nil {
			r.Running(r.jobs)
		}
		values, failure, err := r.step(ctx, s, m, j, step, env)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %s: %w", title, name, err)
		}
		if step.ID != nil {
			steps[step.ID.Value] = map[string]any{"outputs": values}
		}
		if failure != nil {
			j.Log += "##[error]" + failure.Error() + "\n"
			if !s.failed {
				s.failed, j.Failed = true, name
			}
		}
	}
	j.Result = "success"
	if s.failed {
		j.Result = "failure"
	}
	outputs = map[string]any{}
	for _, o := range job.Outputs {
		if outputs[o.Name.Value], err = s.text(o.Value.Value); err != nil {
			return "", nil, err
		}
	}
	return j.Result, outputs, nil
}

// step carries out one step. A failure is the step's, an error is the runner's.
func (r *Runner) step(ctx context.Context, s *scope, m *machine, j *Job, step *actionlint.Step, env map[string]string) (outputs map[string]any, failure, err error) {
	if action, ok := step.Exec.(*actionlint.ExecAction); ok {
		failure, err = r.action(s, m, action)
		return nil, failure, err
	}
	run := step.Exec.(*actionlint.ExecRun)
	this := Step{Job: j.Name, Name: stepName(step), Command: run.Run.Value}
	if r.Before != nil {
		if failure := r.Before(this); failure != nil {
			return nil, failure, nil
		}
	}
	output := filepath.Join(m.temp, "output")
	if err := os.WriteFile(output, nil, 0o644); err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", run.Run.Value)
	cmd.Dir = m.workspace
	cmd.Env = append(slices.Clone(m.env), "GITHUB_OUTPUT="+output, "GITHUB_STEP_SUMMARY="+filepath.Join(m.temp, "summary"), "GITHUB_WORKSPACE="+m.workspace)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	failure = cmd.Run()
	j.Log += "$ " + run.Run.Value + "\n" + log.String()
	if failure == nil && r.After != nil {
		failure = r.After(this)
	}
	written, err := os.ReadFile(output)
	if err != nil {
		return nil, nil, err
	}
	outputs = map[string]any{}
	for line := range strings.Lines(string(written)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			return nil, nil, fmt.Errorf("output %q", line)
		}
		outputs[name] = value
	}
	return outputs, failure, nil
}

// action carries out one of the actions that the workflows use.
func (r *Runner) action(s *scope, m *machine, a *actionlint.ExecAction) (failure, err error) {
	with := func(name string) string {
		in := a.Inputs[name]
		if in == nil {
			return ""
		}
		v, e := s.text(in.Value.Value)
		err = errors.Join(err, e)
		return v
	}
	name, _, _ := strings.Cut(a.Uses.Value, "@")
	switch name {
	case "actions/checkout":
		return nil, r.Checkout(m.workspace)
	case "actions/setup-go":
		return nil, nil
	case "actions/upload-artifact":
		to := filepath.Join(r.artifacts(), with("name"))
		if r.uploaded[to] {
			return nil, fmt.Errorf("two jobs make the artifact %s", with("name"))
		}
		r.uploaded[to] = true
		from := filepath.Join(m.workspace, with("path"))
		info, e := os.Stat(from)
		if e != nil {
			return e, err
		}
		if info.IsDir() {
			return nil, errors.Join(err, os.CopyFS(to, os.DirFS(from)))
		}
		return nil, errors.Join(err, copyFile(from, filepath.Join(to, filepath.Base(from))))
	case "actions/download-artifact":
		from := filepath.Join(r.artifacts(), with("name"))
		if _, e := os.Stat(from); e != nil {
			return e, err
		}
		return nil, errors.Join(err, copyTree(filepath.Join(m.workspace, with("path")), from))
	}
	return nil, fmt.Errorf("%s: an unknown action", a.Uses.Value)
}

// copyTree copies a folder's files into another, over what is there.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		return copyFile(name, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
