package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/internal/testing/chance"
)

// withDerper makes a folder with the entrypoint and a derper that is a script, and returns
// the entrypoint in it.
func withDerper(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	entrypointBinary(t)
	for _, name := range []string{"entrypoint", "flags.json"} {
		b, err := os.ReadFile(filepath.Join(binDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "derper"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "entrypoint")
}

// The mistake it guards: a container that goes on without a derper, or starts one again and
// again that never works.
func TestDerperNeverWorks(t *testing.T) {
	const answers = "#!/bin/sh\ncase $1 in -version) echo 1.102.3; exit;; esac\n"
	t.Run("ends at once", func(t *testing.T) {
		s := startProgram(t, withDerper(t, answers+"echo is it; exit 7"), t.TempDir(), append(ports(t), "VERIFY_CLIENTS=false"))
		s.stops(t, 7)
		if log := s.log.String(); !strings.Contains(log, "derper: ended with code 7\n") || strings.Contains(log, "starting it again") {
			t.Errorf("%s", log)
		}
	})
	t.Run("cannot be started", func(t *testing.T) {
		path := withDerper(t, "no program")
		s := startProgram(t, path, t.TempDir(), append(ports(t), "VERIFY_CLIENTS=false"))
		// It is tried again, and then given up.
		s.logged(t, `derper: start .*/derper: exec format error; next start in 1s`)
		s.logged(t, `derper: start .*/derper: exec format error; giving up`)
		eventually(t, time.Minute, func() error {
			select {
			case <-s.ended:
				return nil
			default:
				return fmt.Errorf("still runs")
			}
		})
		s.stops(t, 1)
	})
	t.Run("can be started at the third time", func(t *testing.T) {
		path := withDerper(t, "no program")
		s := startProgram(t, path, t.TempDir(), append(ports(t), "VERIFY_CLIENTS=false"))
		s.logged(t, `next start in 1s`)
		derper := filepath.Join(filepath.Dir(path), "derper")
		if err := os.Remove(derper); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(derperBinary(t), derper); err != nil {
			t.Fatal(err)
		}
		s.healthy(t)
	})
	t.Run("is stopped while nothing can be started", func(t *testing.T) {
		s := startProgram(t, withDerper(t, "no program"), t.TempDir(), append(ports(t), "VERIFY_CLIENTS=false"))
		s.logged(t, `next start in`)
		s.signal(t, syscall.SIGTERM)
		s.stops(t, 0)
	})
	t.Run("worked, and works no more", func(t *testing.T) {
		dir := t.TempDir()
		flag := filepath.Join(dir, "broken")
		s := startProgram(t, withDerper(t, answers+"if [ -e "+flag+" ]; then exit 9; fi\nsleep 1.2; touch "+flag+"\nexit 8"), dir, append(ports(t), "VERIFY_CLIENTS=false"))
		s.logged(t, `derper: ended with code 8; starting it again\n`)
		s.logged(t, `derper: ended with code 9; starting it again in 4s\n`)
		eventually(t, time.Minute, func() error {
			select {
			case <-s.ended:
				return nil
			default:
				return fmt.Errorf("still runs")
			}
		})
		s.stops(t, 9)
	})
}

// The mistake it guards: a signal that comes before anybody listens, while derper is
// started or started anew, and a container that is killed in the end.
func TestStopAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	random := chance.New(t)
	for range 40 {
		s := start(t, dir, append(ports(t), "VERIFY_CLIENTS=false", "HOSTNAME=derp.example.com"))
		// In the first millisecond the signal is the kernel's and the Go runtime's.
		for !strings.Contains(s.log.String(), "HOSTNAME=") {
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		s.signal(t, syscall.SIGTERM)
		s.stops(t, 0)
	}
	// Both children stand still, and derper is being started anew.
	s := start(t, dir, append(ports(t), "TAILSCALED=true", "TS_LOGIN_SERVER=http://127.0.0.1:1", "HOSTNAME=derp.example.com"))
	s.logged(t, "serving on")
	s.kill(t, "derper", syscall.SIGSTOP)
	s.kill(t, "tailscaled", syscall.SIGSTOP)
	crt, key, err := signedPair("derp.example.com", 90*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"crt": crt, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, "derper-certs", "derp.example.com."+name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.signal(t, syscall.SIGHUP)
	s.logged(t, "restarting derper")
	s.signal(t, syscall.SIGTERM)
	s.stops(t, 0)
}

// The mistake it guards: a hang-up signal that comes before derper catches it, and ends it.
func TestHangUpAtStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rate.json")
	if err := os.WriteFile(path, []byte(`{"PerClientRateLimitBytesPerSec": 1000000}`), 0o644); err != nil {
		t.Fatal(err)
	}
	// What derper does before it catches the signal takes a while.
	derper := "#!/bin/sh\ncase $1 in -version) echo 1.102.3; exit;; esac\necho starts\nsleep 0.5\nexec " + derperBinary(t) + " \"$@\""
	s := startProgram(t, withDerper(t, derper), dir, append(ports(t), "VERIFY_CLIENTS=false", "RATE_CONFIG="+path))
	s.logged(t, "starts")
	s.signal(t, syscall.SIGHUP)
	s.logged(t, "rate config reloaded successfully")
	if log := s.log.String(); strings.Contains(log, "ended with code") {
		t.Error(log)
	}
}

// The mistake it guards: two relays in one container, of which the second answers for the
// first.
func TestSecondRelay(t *testing.T) {
	first := start(t, t.TempDir(), append(ports(t), "VERIFY_CLIENTS=false", "HOSTNAME=derp.example.com"))
	first.healthy(t)
	dir := t.TempDir()
	args := append([]string{"--target", fmt.Sprint(first.cmd.Process.Pid), "--mount", "--wd=" + dir}, entrypointBinary(t))
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Fatal(err)
	}
	second := startProgram(t, nsenter, dir, append(ports(t), "VERIFY_CLIENTS=false", "HOSTNAME=other.example.com"), args...)
	second.logged(t, "warning: commands, the health check among them: another entrypoint runs in this container")
	if out, err := first.command("env"); err != nil || !strings.Contains(out, "HOSTNAME=derp.example.com") {
		t.Errorf("%v: %s", err, out)
	}
}

// The mistake it guards: a derper that ends while its pair is being replaced is started with
// the new pair without a line in the log, or with an older pair than it had.
func TestPairWhenDerperEnds(t *testing.T) {
	const host = "derp.example.com"
	dir := t.TempDir()
	s := start(t, dir, append(ports(t), "VERIFY_CLIENTS=false", "HOSTNAME="+host))
	pair := certificate.At(filepath.Join(dir, "derper-certs"), host)
	s.healthy(t)
	put := func() (leaf []byte) {
		t.Helper()
		crt, key, err := signedPair(host, 90*24*time.Hour)
		if err := errors.Join(err, os.WriteFile(pair.Key, key, 0o600), os.WriteFile(pair.Crt, crt, 0o644)); err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(crt)
		return block.Bytes
	}
	spoil := func() {
		t.Helper()
		if err := os.WriteFile(pair.Crt, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	serves := func(leaf []byte) {
		t.Helper()
		eventually(t, time.Minute, func() error { return servesLeaf(s.get("ADDR"), host, leaf) })
	}

	s.kill(t, "derper", 0) // it is old enough
	leaf := put()
	s.kill(t, "derper", syscall.SIGKILL) // before anybody looked at the pair twice
	serves(leaf)
	s.logged(t, `certificate: new one, valid until \S+; `)
	s.logged(t, `derp map: THE NODE HAS CHANGED`) // no pin any more

	s.kill(t, "derper", 0)
	spoil()
	s.kill(t, "derper", syscall.SIGKILL)
	s.logged(t, `derper is started with the one that it had`)
	serves(leaf)

	s.kill(t, "derper", syscall.SIGSTOP) // its end takes a while
	leaf = put()
	s.signal(t, syscall.SIGHUP)
	s.logged(t, `restarting derper`)
	spoil()
	serves(leaf)
}

// servesLeaf says whether a relay has a certificate.
func servesLeaf(addr, host string, leaf []byte) error {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if got := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw; !bytes.Equal(got, leaf) {
		return errors.New("the relay serves another certificate than it is to serve")
	}
	return nil
}
