package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
	"github.com/xavieralpha/derper/internal/testing/workflowtest"
	"github.com/xavieralpha/derper/internal/verify"
)

// goRun is how anybody runs this program who has only Go.
const goRun = "go run github.com/xavieralpha/derper/cmd/build@main"

// TestRebuildersPage guards that docs/rebuilders.md can be copied: its commands, as the
// shell gets them, rebuild a small release, attest it, and count who did.
func TestRebuildersPage(t *testing.T) {
	need.Minutes(t, "four verifications")
	page, err := os.ReadFile("../../docs/rebuilders.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(\\w+)\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks: expected GitHub, GitLab, crontab, and what counts them", len(blocks))
	}
	var commands []string
	for _, b := range blocks {
		if n := strings.Count(b[2], "\n"); n > 10 {
			t.Errorf("%d lines, more than the ten that people copy:\n%s", n, b[2])
		}
		line := regexp.MustCompile(`(?m)(` + goRun + `|^build) verify .*$`).FindString(b[2])
		commands = append(commands, strings.Replace(line, goRun, "build", 1))
	}
	if _, err := workflowtest.Parse("derper.yml", []byte(blocks[0][2])); err != nil {
		t.Errorf("GitHub: %v", err)
	}
	if !regexp.MustCompile(`(?m)^(\S+ ){5}go run `).MatchString(blocks[2][2]) {
		t.Errorf("crontab: no line with five fields and a command:\n%s", blocks[2][2])
	}

	b := newBuilder(t)
	l, err := lock.Read(b.lock)
	if err != nil {
		t.Fatal(err)
	}
	l.Inputs.Platforms = l.Inputs.Platforms[:1]
	if err := l.Write(b.lock); err != nil {
		t.Fatal(err)
	}
	b.run("--platform", "all", "--update-lock")
	server := registrytest.Distribution(t, registrytest.Options{})
	build(t, cli.ExitOK, "push", "--lock", b.lock, "--to", server.Repository("derper"), "--tag", "latest", b.output)
	const identity = "https://github.com/alice/rebuild/.github/workflows/derper.yml@refs/heads/main"
	sigstore := sigstoretest.New(t, identity)
	program, err := exec.LookPath("build")
	if err != nil {
		t.Fatal(err)
	}
	home, shared := t.TempDir(), t.TempDir()
	releasetest.ShareInto(t, shared)
	bobs, bob := keyPair(t)
	carols, carol := keyPair(t)
	if err := os.Rename(carols, filepath.Join(home, "rebuild.key")); err != nil {
		t.Fatal(err)
	}
	// The small release has fewer platforms than a program without its lock looks for.
	small, err := os.ReadFile(b.lock)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, lock.File), string(small))
	env := []string{
		"PATH=" + filepath.Dir(program) + ":/usr/bin:/bin", "HOME=" + home, "TMPDIR=" + t.TempDir(), "REBUILD_KEY=" + bobs,
		"GOPROXY=" + b.release.Proxy, testSumDB + "=" + b.release.SumDB, testUpstream + "=/nowhere", testShared + "=" + shared,
		testSigstore + "=" + sigstore.TrustedRoot + string(os.PathListSeparator) + sigstore.SigningConfig,
		"ACTIONS_ID_TOKEN_REQUEST_URL=" + sigstore.TokenURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + sigstore.Bearer,
	}
	here := strings.NewReplacer("docker.io/camllia/derper:latest", server.Repository("derper")+":latest",
		"ghcr.io/alice/", server.Repository("alice")+"/", "registry.gitlab.com/bob/", server.Repository("bob")+"/", "registry.example.com/carol/", server.Repository("carol")+"/")
	shell := func(code int, command string) (said string) {
		t.Helper()
		var out bytes.Buffer
		cmd := exec.Command("sh", "-c", here.Replace(command))
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = home, env, &out, &out
		_ = cmd.Run() // the exit code says it
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%s: exit code %d, want %d\n%s", command, got, code, &out)
		}
		return out.String()
	}

	count := commands[3]
	known := func(k verify.Known, keyFile string) {
		t.Helper()
		k.Since, k.Repository = "2026-12-01", server.Repository(k.Name)+"/derper"
		if keyFile != "" {
			key, err := os.ReadFile(keyFile)
			if err != nil {
				t.Fatal(err)
			}
			k.Key = string(key)
		}
		data, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Join(home, verify.KnownFolder)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, k.Name+".json"), string(data))
	}
	known(verify.Known{Name: "alice", Identity: identity, Issuer: sigstoretest.Issuer}, "")
	if said := shell(cli.ExitUsage, count); !strings.Contains(said, "--require 2: rebuilders that are named: 1") {
		t.Errorf("one rebuilder: %s", said)
	}
	known(verify.Known{Name: "bob"}, bob)
	known(verify.Known{Name: "carol"}, carol)
	if said := shell(cli.ExitFailed, count); !strings.Contains(said, "0 of those trusted, 2 are required: alice (identity "+identity) {
		t.Errorf("nobody has attested it: %s", said)
	}
	for i, name := range []string{"alice", "bob", "carol"} {
		if said := shell(cli.ExitOK, commands[i]); !strings.Contains(said, "attached to "+server.Repository(name)+"/derper@sha256:") {
			t.Errorf("%s: %s", name, said)
		}
	}
	if said := shell(cli.ExitOK, count); strings.Count(said, "PASS  rebuilder  ") != 3 {
		t.Errorf("all have attested it: %s", said)
	}
	// A release's notes count them.
	e := standard()
	e.sigstore = func(ctx context.Context, _ sigstoreFiles) (*sign.Sigstore, error) {
		return openSigstore(ctx, sigstoreFiles{root: sigstore.TrustedRoot})
	}
	o := releaseOptions{signFlags: signFlags{env: &e}, Release: release.Release{LockFile: filepath.Join(home, lock.File)}}
	names, among, err := o.confirmed(t.Context(), server.Repository("derper")+":latest", l.Inputs.Platforms)
	if err != nil || among != 3 || strings.Join(names, " ") != "alice bob carol" {
		t.Errorf("for the notes: %d known, of whom confirmed: %q, %v", among, names, err)
	}
	o.LockFile = filepath.Join(t.TempDir(), lock.File)
	if names, known, err := o.confirmed(t.Context(), server.Repository("derper")+":latest", l.Inputs.Platforms); err != nil || known != 0 || names != nil {
		t.Errorf("no folder: %d known, %q, %v", known, names, err)
	}
	// The same key under another name is the same rebuilder.
	known(verify.Known{Name: "dave"}, carol)
	if said := shell(cli.ExitFailed, count); !strings.Contains(said, "dave.json: is named twice: carol (key sha256:") {
		t.Errorf("twice: %s", said)
	}
}
