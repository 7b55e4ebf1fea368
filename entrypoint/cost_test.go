package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	costRuns   = flag.Int("cost.runs", 3, "how often TestCost starts each program")
	costLimits = flag.Bool("cost.limits", false, "let TestCost fail when something takes too long; for bench/entrypoint, on a quiet machine")
)

// The limits of the issue.
const (
	maxStartup     = 15 * time.Millisecond // on top of bare derper
	maxHealthcheck = 50 * time.Millisecond
)

// The mistake it guards: an entrypoint that makes the relay larger in memory than
// derper alone or, where times are looked at, slower to start.
func TestCost(t *testing.T) {
	dir := t.TempDir()
	env := append(baseEnv(dir), append(ports(t), "VERIFY_CLIENTS=false")...)
	stunAddr := "127.0.0.1:" + lookup(env, "STUN_PORT")
	flags := []string{
		"-a=" + lookup(env, "ADDR"), "-http-port=" + lookup(env, "HTTP_PORT"), "-stun-port=" + lookup(env, "STUN_PORT"),
		"-certmode=manual", "-certdir=derper-certs", "-hostname=127.0.0.1", "-c=derper-certs/derper_node.json",
	}
	var bare, own, check []time.Duration
	var bareRSS, ownRSS []int
	for i := range *costRuns + 1 {
		for _, program := range []string{derperBinary(t), entrypointBinary(t)} {
			args := flags
			if program == entrypointBinary(t) {
				args = nil
			}
			took, rss, health := measure(t, program, args, env, dir, stunAddr)
			switch {
			case i == 0: // makes certificate and key, and warms the page cache
			case args != nil:
				bare, bareRSS = append(bare, took), append(bareRSS, rss)
			default:
				own, ownRSS, check = append(own, took), append(ownRSS, rss), append(check, health)
			}
		}
	}
	added := median(own) - median(bare)
	t.Logf("cost: start-up: derper %v, entrypoint %v, on top %v (medians of %d)", median(bare), median(own), added, len(own))
	t.Logf("cost: memory: derper %d kB, entrypoint %d kB (medians of resident set size)", median(bareRSS), median(ownRSS))
	t.Logf("cost: healthcheck: %v (median), %v (slowest)", median(check), slices.Max(check))
	if *costLimits && added > maxStartup {
		t.Errorf("start-up takes %v longer, want at most %v", added, maxStartup)
	}
	if diff := median(ownRSS) - median(bareRSS); diff > median(bareRSS)/20 {
		t.Errorf("memory: %d kB more than bare derper", diff)
	}
	if *costLimits && median(check) > maxHealthcheck {
		t.Errorf("the health check takes %v, want at most %v", median(check), maxHealthcheck)
	}
	// With the host's tailscaled, versions are compared before derper starts.
	var verifying []time.Duration
	withHost := append(env[:len(env):len(env)], "VERIFY_CLIENTS=true", "SOCKET="+host(t, release.Long()))
	for range *costRuns {
		took, _, _ := measure(t, entrypointBinary(t), nil, withHost, dir, stunAddr)
		verifying = append(verifying, took)
	}
	added = median(verifying) - median(bare)
	t.Logf("cost: start-up with the host's tailscaled: %v, on top %v", median(verifying), added)
	if *costLimits && added > maxStartup {
		t.Errorf("start-up with the host's tailscaled takes %v longer, want at most %v", added, maxStartup)
	}
	supervised := start(t, dir, append(env[len(baseEnv(dir)):len(env):len(env)], "HOSTNAME=derp.example.com"))
	supervised.healthy(t)
	t.Logf("cost: memory of the supervisor, where one is needed: %d kB", residentKB(t, supervised.cmd.Process.Pid))
}

// measure starts a program and returns the time until STUN answers, the
// memory after a while, and the time of a health check.
func measure(t *testing.T, program string, args, env []string, dir, stunAddr string) (took time.Duration, rss int, health time.Duration) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = dir, env
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}()
	for askSTUN(stunAddr, time.Millisecond) != nil {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%s does not answer", program)
		}
		time.Sleep(100 * time.Microsecond)
	}
	took = time.Since(begin)
	eventually(t, time.Minute, func() error {
		check := exec.Command(entrypointBinary(t), "healthcheck")
		check.Dir, check.Env = dir, env
		begin := time.Now()
		out, err := check.CombinedOutput()
		health = time.Since(begin)
		if err != nil {
			return fmt.Errorf("healthcheck: %s", out)
		}
		return nil
	})
	time.Sleep(20 * time.Millisecond)
	return took, residentKB(t, cmd.Process.Pid), health
}

func residentKB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

func median[T int | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
