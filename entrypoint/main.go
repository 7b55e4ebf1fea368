// The entrypoint is the program that starts in the image. It turns the
// environment into derper's flags, checks them, makes what is missing, and
// then becomes derper. See package setting for the variables.
//
// Its contract:
//
//   - derper starts only with flags that it accepts. Everything that is wrong
//     is reported at once, on standard error, and the exit code is 1.
//   - Whenever derper needs nobody beside it, the entrypoint becomes derper
//     (execve): no extra process, no memory. It stays as process 1 in three
//     cases only: with a tailscaled of its own; while client verification
//     lacks a tailscaled, to say so every minute; and in manual mode with a
//     certificate that is renewed, to restart derper with the new one.
//   - As process 1 it ends within 3 seconds of a SIGTERM, with derper's code.
//   - It writes only into CERT_DIR, into the directories that other variables
//     name, and a socket into /tmp. It never changes a certificate or key.
//   - Secrets are never printed, and not passed on in the environment.
//
// It uses the standard library only, and neither crypto/tls nor net/http: with
// them it would be larger than its 4 MB.
//
// The voice: progress and warnings on standard error as "entrypoint: what:
// why", lower case, no full stop; results of commands on standard output.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

func main() {
	args := os.Args[1:]
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		if len(args) == 1 && (args[0] == "-h" || args[0] == "-help" || args[0] == "--help") {
			usage()
			return
		}
		os.Exit(run(args))
	case "help":
		usage()
	case "derper", "tailscaled", "/usr/local/bin/derper", "/usr/local/bin/tailscaled":
		os.Exit(become(program(filepath.Base(command)), args, os.Environ()))
	case "healthcheck":
		os.Exit(healthcheck(args))
	case "env":
		os.Exit(printEnv(args))
	case "derpmap":
		os.Exit(printDERPMap(args))
	case "version":
		os.Exit(printVersion())
	default:
		logf("%s: no such command; --help lists all", command)
		os.Exit(2)
	}
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "entrypoint: "+format+"\n", args...)
}

func hint(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "hint: "+format+"\n", args...)
}

// program finds derper or tailscaled: next to the entrypoint, for use outside
// of the image, or else where the image has it.
func program(name string) string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() {
			return beside
		}
	}
	return "/usr/local/bin/" + name
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

func usage() {
	fmt.Print(`usage: docker run IMAGE [flags for derper]
       docker run IMAGE derper|tailscaled [flags]
       docker exec CONTAINER /entrypoint healthcheck|env|derpmap|version

commands
  healthcheck  ask the running relay whether it works; exit code 1 if not
  env          print every variable with its effective value, secrets masked
  derpmap      print the derpMap for the tailnet policy
  version      print the versions of derper and Go
  derper, tailscaled
               run that program as it is, without the variables below

variables, and the derper flags that they stand for; a flag given as argument
wins over the variable; an empty value means unset
` + setting.Usage())
}

// printEnv prints the table with the values that a start would use.
func printEnv(args []string) int {
	set, problems := setting.Read(os.Environ(), args)
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, v := range setting.Table() {
		val := set.Value(v.Name)
		origin := string(val.Origin)
		if val.Path != "" {
			origin += " " + val.Path
		}
		fmt.Fprintf(w, "%s=%s\t%s\n", v.Name, val.Shown(), origin)
	}
	w.Flush()
	return report(problems)
}

// report prints problems and returns the exit code.
func report(problems []setting.Problem) int {
	for _, p := range problems {
		logf("%v", p)
	}
	if len(problems) > 0 {
		return 1
	}
	return 0
}

func printDERPMap(args []string) int {
	set, problems := running(args)
	if code := report(problems); code != 0 {
		return code
	}
	r := relay.Relay{Set: set}
	var cert *certificate.Certificate
	if r.Manual() {
		c, err := r.Pair().Load()
		if err != nil {
			logf("derpmap: %v", err)
			if errors.Is(err, certificate.ErrMissing) {
				hint("start the relay once; it makes a self-signed certificate")
			}
			return 1
		}
		cert = &c
	}
	fmt.Print(r.Node(cert).Policy())
	logf("derpmap: %s", r.Port80())
	return 0
}

func printVersion() int {
	version, err := derperVersion()
	if err != nil {
		logf("version: %v", err)
		return 1
	}
	fmt.Printf("derper %s\n%s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return 0
}

func healthcheck(args []string) int {
	set, problems := running(args)
	if code := report(problems); code != 0 {
		return code
	}
	code := 0
	var fine []string
	for _, result := range health.Check(relay.Relay{Set: set}) {
		switch {
		case result.Err != nil:
			code = 1
			logf("healthcheck: %s: %v", result.Part, result.Err)
		case result.Note != "":
			fine = append(fine, result.Part+" ("+result.Note+")")
		default:
			fine = append(fine, result.Part)
		}
	}
	if code == 0 {
		fmt.Println("ok: " + strings.Join(fine, ", "))
	}
	return code
}
