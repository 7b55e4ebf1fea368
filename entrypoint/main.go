// The entrypoint is the program that starts in the image. It turns the
// environment into derper's flags, checks them, makes what is missing, and runs
// derper, with a tailscaled beside it where that is wanted. See package setting
// for the variables.
//
// Its contract:
//
//   - derper starts only with flags that it accepts. Everything that is wrong
//     is reported at once, on standard error, and the exit code is 1.
//   - It stays as process 1: it reaps, starts again what ends, takes a renewed
//     certificate, and says every minute what keeps clients out.
//   - Nothing that is wrong later takes a working relay down: derper is started
//     anew only with a certificate that was proven.
//   - It ends within 3 seconds of a SIGTERM, with 0; with derper's code when
//     derper cannot be kept running.
//   - It writes only into CERT_DIR, into the directories that other variables
//     name, into /tmp and /dev/shm. It changes no certificate and no key, except for
//     the command renew.
//   - Secrets are never printed, and not passed on in the environment.
//   - Its commands ask the one that runs, see package localapi.
//
// It uses the standard library only: what runs as process 1 of a relay has as
// few authors as can be.
//
// The voice: progress and warnings on standard error as "entrypoint: what:
// why", lower case, no full stop; results of commands on standard output. What
// strangers say in it, and what derper and tailscaled print, is made printable.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/xavieralpha/derper/entrypoint/printable"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

func main() {
	args := os.Args[1:]
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	isHelp := func(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }
	if other := otherProgram(command); other != "" {
		os.Exit(become(other, args, os.Environ()))
	}
	if command != "" {
		signal.Reset() // only a relay ends in an order, see supervisor.Signals
	}
	if slices.ContainsFunc(args, isHelp) {
		command = "help"
	}
	switch command {
	case "":
		os.Exit(run(args))
	case "help":
		os.Exit(usage())
	case "env", "healthcheck", "derpmap", "renew":
		os.Exit(ask(command, args))
	case "version":
		os.Exit(printVersion())
	case "sh", "bash", "ash", "/bin/sh", "/bin/bash", "/bin/ash":
		if otherProgram("sh") != "" {
			logf("%s: the shell of this image is sh", command)
			os.Exit(127)
		}
		logf("%s: there is no shell in this image; one whose tag ends in debug has one. To look into a running relay: docker exec CONTAINER /entrypoint env", command)
		os.Exit(127)
	case "/entrypoint", "entrypoint":
		logf("%s: is what docker run starts by itself; leave it out", command)
		os.Exit(2)
	default:
		logf("%s: no such command; --help lists all", command)
		os.Exit(2)
	}
}

func logf(format string, args ...any) { say("entrypoint: "+format, args...) }

func hint(format string, args ...any) { say("hint: "+format, args...) }

func say(format string, args ...any) {
	fmt.Fprint(os.Stderr, printable.Text(line(format, args...)))
}

// line is a line of this program's. There are words of strangers in it, so what else it has
// of lines is indented.
func line(format string, args ...any) string {
	return strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n  ") + "\n"
}

// program finds derper or tailscaled.
func program(name string) string { return placed("/usr/local/bin/" + name) }

// placed finds a file of the image: next to the entrypoint, for use outside of the image, or
// else where the image has it.
func placed(name string) string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), filepath.Base(name))
		if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() {
			return beside
		}
	}
	return name
}

// variables are those that the image understands. It logs what keeps it from knowing them.
func variables() (table *setting.Table, ok bool) {
	name := placed(setting.File)
	data, err := os.ReadFile(name)
	if err == nil {
		var release setting.Release
		if release, err = setting.ParseRelease(data); err == nil {
			return release.Table(), true
		}
		err = fmt.Errorf("%s: %w", name, err)
	}
	logf("derper's flags: %v", err)
	hint("the image is damaged: pull it again")
	return nil, false
}

// otherProgram is the path of a program that is to run in place of the entrypoint, "" if the
// command names none. The commands of the entrypoint are its own, whatever is in PATH.
func otherProgram(command string) string {
	switch command {
	case "", "help", "env", "healthcheck", "derpmap", "renew", "version", "entrypoint", "/entrypoint":
		return ""
	case "derper", "tailscaled":
		return program(command)
	}
	path, err := exec.LookPath(command)
	if err != nil {
		return ""
	}
	return path
}

// become replaces the process. It returns only if that fails.
func become(path string, args, environ []string) int {
	err := syscall.Exec(path, append([]string{path}, args...), environ)
	logf("%s: cannot start: %v", path, err)
	if errors.Is(err, syscall.ENOENT) {
		return 127
	}
	return 126
}

func usage() int {
	table, ok := variables()
	if !ok {
		return 1
	}
	fmt.Print(`usage: docker run IMAGE [flags for derper]
       docker run IMAGE PROGRAM [arguments]
       docker exec CONTAINER /entrypoint healthcheck|env|derpmap|renew|version

commands
  healthcheck  ask the running relay whether it works; exit code 1 if not
  env          print every variable with its effective value and where it comes
               from, secrets masked; without a running relay, what a start gives
  derpmap      print what the tailnet policy needs: the derpMap, and the grant
               for a peer relay
  renew        make a new self-signed certificate, and print the new node
  version      print the versions of derper and Go
  PROGRAM      run that program of the image, such as derper or tailscaled, as
               it is, without the variables below

example
  docker run -p 443:443 -p 80:80 -p 3478:3478/udp -v derper:/root/derper-certs \
    -e HOSTNAME=derp.example.com -e CERT_MODE=letsencrypt \
    -e TS_AUTHKEY_FILE=/run/secrets/authkey -v /etc/derper/authkey:/run/secrets/authkey:ro IMAGE

exit codes: 0 it worked, or was stopped; 1 it did not; 2 the command is wrong;
126, 127 a program cannot be started. A derper that cannot be kept running gives
its own.

Nobody is let in whom VERIFY_CLIENT_URL answers with an error or with anything
that is no answer; VERIFY_FAIL_OPEN lets clients in only while it cannot be
reached at all.

variables, and the derper flags that they stand for; a flag given as argument
wins over the variable; an empty value means unset
` + table.Usage())
	return 0
}
