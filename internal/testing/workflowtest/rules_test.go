package workflowtest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// policy is what this repository's workflows may do. Who adds to it widens what a
// stolen token or a bad change can do.
var policy = &Policy{
	Root: "../../..",
	// Each commit was compared with the tag, in the workflows of several unrelated projects.
	Actions: map[string]string{
		"actions/checkout":                  "de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2",
		"actions/setup-go":                  "4a3601121dd01d1626a1e23e37211e3254c1c06c # v6.4.0",
		"actions/upload-artifact":           "043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1",
		"actions/download-artifact":         "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1",
		"dagger/dagger-for-github":          "27b130bf0f79a7f6fbbbe0fbca6760dc9bb40a77 # v8.4.1",
		"peter-evans/dockerhub-description": "1b9a80c056b620d92cedb9d9b5a223409c68ddfa # v5.0.0",
	},
	Grants: map[string][]string{
		"ci.yml/check":                {"contents: read"},
		"ci.yml/image":                {"contents: read"},
		"dagger.yml/build":            {"contents: read"},
		"description.yml/description": {"contents: read"},
		"verify.yml/verify":           {"contents: read", "packages: read"},
		"verify.yml/report":           {"actions: read", "contents: read", "issues: write"},
		"scan.yml/scan":               {"contents: read"},
		"scan.yml/sign":               {"contents: read", "id-token: write", "packages: write"},
		"scan.yml/report":             {"actions: read", "contents: read", "issues: write"},
		"weekly.yml/check":            {"contents: read"},
		"weekly.yml/readers":          {"contents: read"},
		"weekly.yml/report":           {"actions: read", "contents: read", "issues: write"},
		// A caller must have what any job of the called workflow has.
		"release.yml/stable":    {"actions: read", "contents: write", "id-token: write", "issues: write", "packages: write"},
		"release.yml/unstable":  {"actions: read", "contents: write", "id-token: write", "issues: write", "packages: write"},
		"publish.yml/update":    {"contents: read"},
		"publish.yml/compile":   {"contents: read"},
		"publish.yml/build":     {"contents: read"},
		"publish.yml/scan":      {"contents: read"},
		"publish.yml/test":      {"contents: read"},
		"publish.yml/push":      {"contents: read", "packages: write"},
		"publish.yml/verify":    {"contents: read", "packages: read"},
		"publish.yml/sign":      {"contents: read", "id-token: write", "packages: write"},
		"publish.yml/tag":       {"contents: read", "packages: write"},
		"publish.yml/record":    {"contents: write", "packages: read"},
		"publish.yml/report":    {"actions: read", "contents: read", "issues: write"},
		"sign.yml/sign":         {"contents: read", "id-token: write", "packages: write"},
		"withdraw.yml/withdraw": {"contents: write", "packages: write"},
	},
	Secrets: map[string][]string{
		"description.yml/description": dockerHub,
		"release.yml/stable":          dockerHub,
		"release.yml/unstable":        dockerHub,
		"publish.yml/push":            dockerHub,
		"publish.yml/sign":            dockerHub,
		"publish.yml/tag":             dockerHub,
		"scan.yml/sign":               dockerHub,
		"sign.yml/sign":               dockerHub,
		"withdraw.yml/withdraw":       dockerHub,
	},
	// Its protection is the repository's own setting. In one that has no such environment, a fork,
	// GitHub makes it for the first run, without any.
	Environments: map[string]string{"publish.yml/tag": "release", "sign.yml/sign": "release"},
	Cached:       []string{"ci.yml/check", "ci.yml/image", "dagger.yml/build", "publish.yml/update", "weekly.yml/check", "weekly.yml/readers"},
	Cancelled:    []string{"ci.yml", "dagger.yml"},
	// Words, some of them "$VARIABLES": nothing that a value could break out of.
	Run: regexp.MustCompile(`^(go run \./cmd/build|go run \./ci|bash \.ci/[a-z]+|\.ci/[a-z]+)( ([a-zA-Z0-9./_=,-]+|"[a-z/=-]*\$[A-Z]+(:[a-z-]+)?"))*$`),
}

var dockerHub = []string{"DOCKERHUB_USERNAME", "DOCKERHUB_TOKEN"}

func load(t *testing.T) []*File {
	t.Helper()
	files, err := Load("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestWorkflows(t *testing.T) {
	var jobs []string
	for _, f := range load(t) {
		for _, wrong := range policy.Check(f.Name, f.Source) {
			t.Error(wrong)
		}
		for _, job := range f.Jobs() {
			jobs = append(jobs, f.Name+"/"+job.ID.Value)
		}
	}
	// A right that no job has any more is none to keep.
	for _, name := range slices.Concat(slices.Collect(maps.Keys(policy.Grants)), slices.Collect(maps.Keys(policy.Secrets)), slices.Collect(maps.Keys(policy.Environments)), policy.Cached) {
		if !slices.Contains(jobs, name) {
			t.Errorf("the policy names a job %s, and there is none", name)
		}
	}
}

// TestSpoiled guards the guard: each change of a workflow that would weaken it is noticed.
func TestSpoiled(t *testing.T) {
	const (
		checkout = "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"
		guard    = "      - name: refuse another repository as the caller\n        if: job.workflow_repository != github.repository\n        run: exit 1\n"
	)
	for _, test := range []struct{ file, old, new, want string }{
		{"publish.yml", "permissions: {}", "permissions: read-all", "permissions at the top"},
		{"publish.yml", "permissions: {}", "permissions:\n  contents: read", "permissions at the top"},
		{"publish.yml", "permissions: {}\n", "", "permissions at the top"},
		{"ci.yml", "    permissions:\n      contents: read\n", "", "check: no permissions of its own"},
		{"ci.yml", "      contents: read\n", "      contents: write\n", `check: has the permissions ["contents: write"]`},
		{"ci.yml", "    permissions:\n      contents: read\n", "    permissions: write-all\n", `has the permissions ["write-all"]`},
		{"publish.yml", "      packages: write\n", "      packages: write\n      id-token: write\n", "push: has the permissions"},
		{"ci.yml", checkout, "actions/checkout@v6", `actions/checkout is at "v6"`},
		{"ci.yml", checkout, "actions/checkout@de0fac2 # v6.0.2", "actions/checkout is at"},
		{"ci.yml", checkout, strings.TrimSuffix(checkout, " # v6.0.2"), "actions/checkout is at"},
		{"ci.yml", checkout, strings.Replace(checkout, "v6.0.2", "v6.0.1", 1), "actions/checkout is at"},
		{"ci.yml", checkout, "somebody/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "somebody/checkout is at"},
		{"release.yml", "uses: ./.github/workflows/publish.yml", "uses: somebody/derper/.github/workflows/publish.yml@main", "somebody/derper/.github/workflows/publish.yml is at"},
		{"publish.yml", "persist-credentials: false", "persist-credentials: true", "leaves the token in the checkout"},
		{"publish.yml", "        with:\n          persist-credentials: false\n", "", "leaves the token in the checkout"},
		{"publish.yml", "          cache: false\n", "", "compile: Run actions/setup-go"},
		{"sign.yml", "cache: false", "cache: true", "a cache, which other jobs can write"},
		{"publish.yml", "    timeout-minutes: 90\n", "", "compile: no timeout"},
		{"publish.yml", "timeout-minutes: 90", "timeout-minutes: 360", "compile: no timeout"},
		{"publish.yml", "runs-on: ubuntu-24.04", "runs-on: ubuntu-latest", "update: runs on ubuntu-latest"},
		{"release.yml", "cancel-in-progress: false", "cancel-in-progress: true", "cancel-in-progress is true"},
		{"release.yml", "  cancel-in-progress: false\n", "", "cancel-in-progress is not said"},
		{"release.yml", "concurrency:\n  group: release\n  cancel-in-progress: false\n", "", "no concurrency group"},
		{"ci.yml", "  pull_request:\n", "  pull_request_target:\n", "on pull_request_target: strangers"},
		{"ci.yml", "  pull_request:\n", "  issue_comment:\n", "on issue_comment: strangers"},
		{"release.yml", "    secrets:\n      DOCKERHUB_USERNAME: ${{ secrets.DOCKERHUB_USERNAME }}\n      DOCKERHUB_TOKEN: ${{ secrets.DOCKERHUB_TOKEN }}\n", "    secrets: inherit\n", "stable: hands on every secret"},
		{"publish.yml", "          PLATFORMS: ${{ matrix.platforms }}", "          PLATFORMS: ${{ secrets.DOCKERHUB_TOKEN }}", "test: test the image: has secrets.DOCKERHUB_TOKEN"},
		{"publish.yml", "  LOCK: ${{ inputs.lock }}", "  LOCK: ${{ secrets.DOCKERHUB_TOKEN }}", "env: has secrets.DOCKERHUB_TOKEN"},
		{"sign.yml", "      REPOSITORIES: ${{ join(fromJSON(inputs.images), ',') }}", "      REPOSITORIES: ${{ secrets.DOCKERHUB_TOKEN }}", "env of the job: has secrets.DOCKERHUB_TOKEN"},
		{"sign.yml", "      REPOSITORIES: ${{ join(fromJSON(inputs.images), ',') }}", "      REPOSITORIES: ${{ github.token }}", "every step has the token"},
		{"sign.yml", "DOCKER_IO_PASSWORD: ${{ secrets.DOCKERHUB_TOKEN }}", "DOCKER_IO_PASSWORD: ${{ toJSON(secrets) }}", "sign and attest: has secrets"},
		{"ci.yml", "run: bash .ci/run", "run: bash .ci/run && curl https://example.com", "not one command of this project"},
		{"ci.yml", "run: go run ./cmd/build test", "run: make test", "not one command of this project"},
		{"ci.yml", "run: go run ./cmd/build test", "run: |\n          go run ./cmd/build test\n          go run ./cmd/build", "not one command of this project"},
		{"sign.yml", `"$REPOSITORIES"`, "${{ inputs.images }}", "not one command of this project"},
		{"sign.yml", `"$REPOSITORIES"`, "$REPOSITORIES", "not one command of this project"},
		{"sign.yml", `--to "$REPOSITORIES"`, `--unsigned; true`, "not one command of this project"},
		{"sign.yml", "      - name: sign and attest\n", "      - name: sign and attest\n        shell: python\n", "a shell or a folder of its own"},
		// Who signs and who moves tags waits for the maintainer, where one protects the environment.
		{"sign.yml", "    environment: release # which a maintainer may protect: docs/release.md\n", "", `sign: runs in the environment "", not in "release"`},
		{"publish.yml", "environment: release", "environment: ${{ inputs.channel }}", `tag: runs in the environment "${{ inputs.channel }}", not in "release"`},
		{"publish.yml", "    environment: release # which a maintainer may protect: docs/release.md\n", "", `tag: runs in the environment "", not in "release"`},
		{"ci.yml", "    timeout-minutes: 120\n", "    timeout-minutes: 120\n    environment: release\n", `check: runs in the environment "release", not in ""`},
		{"publish.yml", "    uses: ./.github/workflows/sign.yml\n", "    uses: ./.github/workflows/sign.yml\n    environment: release\n", "environment"}, // GitHub refuses it where another workflow is called
		// A stranger who calls the workflow that signs has a certificate in our name.
		{"sign.yml", guard, "", "sign: signs for any caller"},
		{"sign.yml", "if: job.workflow_repository != github.repository", "if: job.workflow_repository == github.repository", "sign: signs for any caller"},
		{"sign.yml", "if: job.workflow_repository != github.repository", "if: github.repository != 'xavieralpha/derper'", "sign: signs for any caller"}, // forks, too
		{"sign.yml", "if: job.workflow_repository != github.repository", "if: job.workflow_repository != inputs.images", "sign: signs for any caller"},
		{"sign.yml", "if: job.workflow_repository != github.repository", "if: job.workflow_repository != ''", "sign: signs for any caller"},
		{"sign.yml", "        run: exit 1\n", "        run: go run ./cmd/build version\n", "sign: signs for any caller"},
		{"sign.yml", "        run: exit 1\n", "        run: exit 1\n        continue-on-error: true\n", "may run after a step that failed"},
		{"sign.yml", "      - name: sign and attest\n", "      - name: sign and attest\n        if: always()\n", "sign and attest: may run after a step that failed"},
		{"sign.yml", "    timeout-minutes: 30\n", "    timeout-minutes: 30\n    if: github.repository == 'xavieralpha/derper'\n", "a job that is skipped is no failure"},
		{"sign.yml", "    timeout-minutes: 30\n", "    timeout-minutes: 30\n    continue-on-error: true\n", "sign: goes on after an error"},
		{"sign.yml", "          repository: ${{ job.workflow_repository }}\n", "", "repository is not ${{ job.workflow_repository }}"},
		{"sign.yml", "${{ job.workflow_sha }}", "${{ github.sha }}", "ref is not ${{ job.workflow_sha }}"},
		{"sign.yml", "job.workflow_sha", "job.workflow_sah", "actionlint"},
		{"ci.yml", "go-version: ${{ matrix.go }}", "go-version: ${{ job.workflow_sha }}", "actionlint"}, // the exception is sign.yml's
		{"publish.yml", "needs.update.outputs.release ", "needs.update.outputs.relase ", "actionlint"},
		{"release.yml", "      lock: versions.json\n", "", "actionlint"}, // the called workflow requires it
		{"publish.yml", "needs: [update, build, push]", "needs: [update, build, psuh]", "actionlint"},
	} {
		i := slices.IndexFunc(load(t), func(f *File) bool { return f.Name == test.file })
		source := string(load(t)[i].Source)
		spoiled := strings.Replace(source, test.old, test.new, 1)
		if spoiled == source {
			t.Errorf("%s has no %q to spoil", test.file, test.old)
			continue
		}
		wrong := policy.Check(test.file, []byte(spoiled))
		if !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, test.want) }) {
			t.Errorf("%s: %q in the place of %q: not noticed as %q, but:\n%s", test.file, test.new, test.old, test.want, strings.Join(wrong, "\n"))
		}
	}
}

// TestCondition guards what a condition comes to for us, for a fork that calls its own
// workflow, and for a stranger who calls ours.
func TestCondition(t *testing.T) {
	const refuses = "job.workflow_repository != github.repository"
	for _, test := range []struct {
		condition, own, caller string
		want                   bool
	}{
		{refuses, "xavieralpha/derper", "xavieralpha/derper", false},
		{refuses, "me/derper", "me/derper", false},
		{refuses, "Me/derper", "me/Derper", false}, // one repository, to GitHub
		{refuses, "xavieralpha/derper", "mallory/x", true},
		{refuses, "xavieralpha/derper", "mallory/derper", true},
		{refuses, "xavieralpha/derper", "xavieralpha/derper-x", true},
		{refuses, "", "xavieralpha/derper", true},
		{"${{ " + refuses + " }}", "xavieralpha/derper", "mallory/x", true},
		{"github.repository == 'me/derper'", "", "me/derper", true},
	} {
		got, err := Condition(test.condition, map[string]string{"job.workflow_repository": test.own, "github.repository": test.caller})
		if err != nil || got != test.want {
			t.Errorf("%s of %q, called by %q: %v, %v", test.condition, test.own, test.caller, got, err)
		}
	}
	for _, condition := range []string{"always()", "job.workflow_repository", "github.actor != github.repository", "github.repository >", "github.repository != 1"} {
		if got, err := Condition(condition, map[string]string{"github.repository": "a"}); err == nil || got {
			t.Errorf("%s: %v, %v", condition, got, err)
		}
	}
}
