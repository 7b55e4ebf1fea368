package main

import (
	"flag"
	"fmt"
	"os"
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

// What the entrypoint may take.
const (
	maxStartup     = 10 * time.Millisecond // on top of bare derper, until STUN answers
	maxHealthcheck = 50 * time.Millisecond
	maxAnonymousKB = 8 << 10 // of memory, while it runs derper
	maxResidentKB  = 14 << 10
)

// The mistake it guards: an entrypoint that takes much memory beside derper or, where
// times are looked at, makes it slower to start.
func TestCost(t *testing.T) {
	dir := t.TempDir()
	relayEnv := append(ports(t), "VERIFY_CLIENTS=false")
	env := append(baseEnv(dir), relayEnv...)
	stunAddr := "127.0.0.1:" + lookup(env, "STUN_PORT")
	flags := []string{
		"-a=" + lookup(env, "ADDR"), "-http-port=" + lookup(env, "HTTP_PORT"), "-stun-port=" + lookup(env, "STUN_PORT"),
		"-certmode=manual", "-certdir=derper-certs", "-hostname=127.0.0.1", "-c=derper-certs/derper_node.json",
	}
	var bare, own, verifying, check []time.Duration
	var derper, resident, anonymous []int
	first := true
	for range *costRuns + 1 { // the first makes certificate and key, and warms the page cache
		took, s := measure(t, derperBinary(t), dir, stunAddr, relayEnv, flags...)
		memory, _ := memoryKB(t, s.cmd.Process.Pid)
		s.stop(t)
		ownTook, s := measure(t, entrypointBinary(t), dir, stunAddr, relayEnv)
		s.healthy(t)
		began := time.Now()
		s.healthy(t)
		checkTook := time.Since(began)
		all, anon := memoryKB(t, s.cmd.Process.Pid)
		s.stop(t)
		// With the host's tailscaled, and all that can be switched on.
		more := append([]string{"VERIFY_CLIENTS=true", "SOCKET=" + host(t, release.Long()), fmt.Sprintf("METRICS_ADDR=127.0.0.1:%d", freePort(t))}, relayEnv[:3]...)
		verifyTook, s := measure(t, entrypointBinary(t), dir, stunAddr, more)
		s.stop(t)
		if first {
			first = false
			continue
		}
		bare, own, verifying, check = append(bare, took), append(own, ownTook), append(verifying, verifyTook), append(check, checkTook)
		derper, resident, anonymous = append(derper, memory), append(resident, all), append(anonymous, anon)
	}
	added, withHost := median(own)-median(bare), median(verifying)-median(bare)
	t.Logf("cost: first STUN answer: derper alone %v, with the entrypoint %v more, with the host's tailscaled %v more (medians of %d)", median(bare), added, withHost, len(own))
	t.Logf("cost: memory: derper %d kB resident, the entrypoint %d kB, of which %d kB anonymous (medians)", median(derper), median(resident), median(anonymous))
	t.Logf("cost: healthcheck: %v (median), %v (slowest)", median(check), slices.Max(check))
	if *costLimits && (added > maxStartup || withHost > maxStartup) {
		t.Errorf("the first STUN answer comes %v and %v later, want at most %v", added, withHost, maxStartup)
	}
	if *costLimits && median(check) > maxHealthcheck {
		t.Errorf("the health check takes %v, want at most %v", median(check), maxHealthcheck)
	}
	if median(anonymous) > maxAnonymousKB || median(resident) > maxResidentKB {
		t.Errorf("memory: %d kB resident, want at most %d; %d kB anonymous, want at most %d", median(resident), maxResidentKB, median(anonymous), maxAnonymousKB)
	}
}

// measure starts a program and returns the time until STUN answers.
func measure(t *testing.T, program, dir, stunAddr string, env []string, args ...string) (took time.Duration, s *started) {
	t.Helper()
	begin := time.Now()
	s = startProgram(t, program, dir, env, args...)
	for askSTUN(stunAddr, time.Millisecond) != nil {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%s does not answer", program)
		}
		time.Sleep(100 * time.Microsecond)
	}
	return time.Since(begin), s
}

// stop ends the program.
func (s *started) stop(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGTERM)
	s.stops(t, 0)
}

// memoryKB is what a process takes, and the part of it that is in no file.
func memoryKB(t *testing.T, pid int) (resident, anonymous int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]*int{"VmRSS:": &resident, "RssAnon:": &anonymous} {
		_, rest, _ := strings.Cut(string(b), name)
		if *to, err = strconv.Atoi(strings.Fields(rest)[0]); err != nil {
			t.Fatal(err)
		}
	}
	return resident, anonymous
}

func median[T int | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
