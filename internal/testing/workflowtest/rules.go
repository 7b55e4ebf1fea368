package workflowtest

import (
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
)

// A Policy is what the workflows of a repository may do. What it does not name is
// refused.
type Policy struct {
	// Root is the repository's folder, where workflows that are called are.
	Root string
	// Actions are those in use, each with the one commit and the release that it is,
	// as "de0fac… # v6.0.2".
	Actions map[string]string
	// Grants are the permissions of each job, file/job, as "contents: read", sorted.
	Grants map[string][]string
	// Secrets are those that a job has.
	Secrets map[string][]string
	// Environments are the environments that jobs run in, whose protection they wait for. No
	// other job has one: its secrets would be others' than those of the repository.
	Environments map[string]string
	// Cached are the jobs that may have a cache.
	Cached []string
	// Cancelled are the workflows whose runs a newer one may stop half-way.
	Cancelled []string
	// Run is the form of a command line.
	Run *regexp.Regexp
}

// Check checks a workflow and returns what is wrong with it, a line each.
func (p *Policy) Check(name string, source []byte) (wrong []string) {
	lint, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{})
	if err != nil {
		return []string{err.Error()}
	}
	project, err := actionlint.NewProject(p.Root)
	if err != nil {
		return []string{err.Error()}
	}
	errs, err := lint.Lint(path.Join(Dir, name), source, project) // by which its config knows it
	if err != nil {
		return []string{err.Error()}
	}
	c := &checker{policy: p, file: name}
	for _, e := range errs {
		c.add("actionlint: line %d: %s", e.Line, e.Message)
	}
	f, err := Parse(name, source)
	if err != nil {
		return append(c.wrong, err.Error())
	}
	c.workflow(f)
	c.pins(string(source))
	return c.wrong
}

type checker struct {
	policy *Policy
	file   string
	called bool // by other workflows, of any repository
	wrong  []string
}

func (c *checker) add(format string, args ...any) {
	c.wrong = append(c.wrong, c.file+": "+fmt.Sprintf(format, args...))
}

func (c *checker) workflow(f *File) {
	w := f.Workflow
	if p := w.Permissions; p == nil || p.All != nil || len(p.Scopes) > 0 {
		c.add("permissions at the top are not {}")
	}
	for _, on := range w.On {
		switch on.EventName() {
		case "workflow_call":
			c.called = true // its caller's group holds
		case "schedule", "workflow_dispatch", "push", "pull_request":
		default:
			c.add("on %s: strangers decide when it runs, with our rights", on.EventName())
		}
	}
	if !c.called {
		c.concurrency(w.Concurrency)
	}
	if w.Env != nil {
		c.secrets("env", w.Env, nil)
	}
	for _, job := range f.Jobs() {
		c.job(job)
	}
}

func (c *checker) concurrency(group *actionlint.Concurrency) {
	switch {
	case group == nil || group.Group == nil:
		c.add("no concurrency group: two runs may be at it at once")
	case group.CancelInProgress == nil || group.CancelInProgress.Expression != nil:
		c.add("cancel-in-progress is not said")
	case group.CancelInProgress.Value != slices.Contains(c.policy.Cancelled, c.file):
		c.add("cancel-in-progress is %v", group.CancelInProgress.Value)
	}
}

func (c *checker) job(job *actionlint.Job) {
	where := c.file + "/" + job.ID.Value
	if job.Permissions == nil {
		c.add("%s: no permissions of its own", job.ID.Value)
	}
	grants := Grants(job)
	if want := c.policy.Grants[where]; !slices.Equal(grants, want) {
		c.add("%s: has the permissions %q, and may have %q", job.ID.Value, grants, want)
	}
	allowed := c.policy.Secrets[where]
	if call := job.WorkflowCall; call != nil {
		if call.InheritSecrets {
			c.add("%s: hands on every secret", job.ID.Value)
		}
		for _, s := range call.Secrets {
			c.expressions(job.ID.Value, s.Value.Value, allowed)
		}
		return
	}
	if job.TimeoutMinutes == nil || job.TimeoutMinutes.Value > 120 {
		c.add("%s: no timeout, or one of more than two hours", job.ID.Value)
	}
	in := ""
	if e := job.Environment; e != nil && e.Name != nil {
		in = e.Name.Value
	}
	if want := c.policy.Environments[where]; in != want {
		c.add("%s: runs in the environment %q, not in %q", job.ID.Value, in, want)
	}
	if job.RunsOn != nil {
		for _, label := range job.RunsOn.Labels {
			if strings.HasSuffix(label.Value, "-latest") {
				c.add("%s: runs on %s, whatever that is", job.ID.Value, label.Value)
			}
		}
	}
	if c.called && slices.Contains(grants, "id-token: write") {
		c.identity(job)
	}
	c.secrets(job.ID.Value+": env of the job", job.Env, nil)
	for _, step := range job.Steps {
		c.step(job, step, allowed)
	}
}

// refuse is the command of a step that ends a job.
const refuse = "exit 1"

// identity checks a job that acts in the name of its workflow, whoever calls that: its
// first step ends it for a caller of another repository, and what it checks out is what
// the workflow itself is in.
func (c *checker) identity(job *actionlint.Job) {
	where := job.ID.Value
	if job.If != nil {
		c.add("%s: has a condition, and a job that is skipped is no failure", where)
	}
	if job.ContinueOnError != nil {
		c.add("%s: goes on after an error", where)
	}
	if !refusesStrangers(job.Steps) {
		c.add("%s: signs for any caller: its first step does not refuse another repository's", where)
	}
	for i, step := range job.Steps {
		if step.ContinueOnError != nil || i > 0 && step.If != nil {
			c.add("%s: %s: may run after a step that failed", where, stepName(step))
		}
		e, ok := step.Exec.(*actionlint.ExecAction)
		if !ok || !strings.HasPrefix(e.Uses.Value, "actions/checkout@") {
			continue
		}
		for name, want := range map[string]string{"repository": "${{ job.workflow_repository }}", "ref": "${{ job.workflow_sha }}"} {
			if in := e.Inputs[name]; in == nil || in.Value.Value != want {
				c.add("%s: %s: %s is not %s, so the code is the caller's", where, stepName(step), name, want)
			}
		}
	}
}

// refusesStrangers reports whether the first step fails where the caller is another
// repository than the one that has the workflow, or where that is not known, and only there.
func refusesStrangers(steps []*actionlint.Step) bool {
	if len(steps) == 0 || steps[0].If == nil {
		return false
	}
	if run, ok := steps[0].Exec.(*actionlint.ExecRun); !ok || run.Run.Value != refuse {
		return false
	}
	for _, call := range []struct {
		caller, own string
		refused     bool
	}{
		{"me/project", "me/project", false}, // ourselves, or a fork that calls its own
		{"me/fork", "me/project", true},
		{"stranger/project", "me/project", true},
		{"me/project", "", true},
	} {
		fails, err := Condition(steps[0].If.Value, map[string]string{"github.repository": call.caller, "job.workflow_repository": call.own})
		if err != nil || fails != call.refused {
			return false
		}
	}
	return true
}

// Grants are the permissions of a job, as "contents: read", sorted.
func Grants(job *actionlint.Job) (grants []string) {
	switch p := job.Permissions; {
	case p == nil:
	case p.All != nil:
		grants = []string{p.All.Value}
	default:
		for _, s := range p.Scopes {
			grants = append(grants, s.Name.Value+": "+s.Value.Value)
		}
		slices.Sort(grants)
	}
	return grants
}

func (c *checker) step(job *actionlint.Job, step *actionlint.Step, allowed []string) {
	where := job.ID.Value + ": " + stepName(step)
	c.secrets(where, step.Env, allowed)
	switch e := step.Exec.(type) {
	case *actionlint.ExecRun:
		if e.Run.Value != refuse && !c.policy.Run.MatchString(e.Run.Value) {
			c.add("%s: not one command of this project: %s", where, e.Run.Value)
		}
		if e.Shell != nil || e.WorkingDirectory != nil {
			c.add("%s: a shell or a folder of its own", where)
		}
	case *actionlint.ExecAction:
		with := func(name string) string {
			if in := e.Inputs[name]; in != nil {
				return in.Value.Value
			}
			return ""
		}
		for _, in := range e.Inputs {
			c.expressions(where, in.Value.Value, allowed)
		}
		switch action, _, _ := strings.Cut(e.Uses.Value, "@"); action {
		case "actions/checkout":
			if with("persist-credentials") != "false" {
				c.add("%s: leaves the token in the checkout", where)
			}
		case "actions/setup-go":
			if with("cache") != "false" && !slices.Contains(c.policy.Cached, c.file+"/"+job.ID.Value) {
				c.add("%s: a cache, which other jobs can write", where)
			}
		case "actions/cache":
			c.add("%s: a cache", where)
		}
	}
}

var secret = regexp.MustCompile(`\bsecrets\b(\.\w+)?`)

func (c *checker) secrets(where string, env *actionlint.Env, allowed []string) {
	if env == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(env.Vars)) {
		c.expressions(where, env.Vars[name].Value.Value, allowed)
		if where == "env" || strings.HasSuffix(where, "env of the job") {
			if strings.Contains(env.Vars[name].Value.Value, "github.token") {
				c.add("%s: every step has the token", where)
			}
		}
	}
}

// expressions looks for secrets that are not allowed.
func (c *checker) expressions(where, text string, allowed []string) {
	for _, found := range secret.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(allowed, strings.TrimPrefix(found[1], ".")) {
			c.add("%s: has %s", where, found[0])
		}
	}
}

var uses = regexp.MustCompile(`(?m)^\s*(?:- )?uses:\s*(\S+)[ \t]*(.*)$`)

// pins checks that each action is the one commit that is known, and says which
// release that is.
func (c *checker) pins(source string) {
	for _, m := range uses.FindAllStringSubmatch(source, -1) {
		if strings.HasPrefix(m[1], "./"+Dir+"/") {
			continue
		}
		action, commit, _ := strings.Cut(m[1], "@")
		if got := strings.TrimSpace(commit + " " + m[2]); got != c.policy.Actions[action] {
			c.add("%s is at %q, not at %q", action, got, c.policy.Actions[action])
		}
	}
}
