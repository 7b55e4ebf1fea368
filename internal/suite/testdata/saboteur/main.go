// Saboteur takes the place of a program in a copy of the image and spoils one thing, which the file /sabotage names.
// All else it leaves to the program that it stands for, in /real.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	text, err := os.ReadFile("/sabotage")
	check(err)
	words := strings.Fields(string(text))
	what, arg := words[0], strings.Join(words[1:], " ")
	switch filepath.Base(os.Args[0]) {
	case "entrypoint":
		entrypoint(what, arg)
	case "derper":
		derper(what, arg)
	case "tailscaled":
		if what == "dead-tailscaled" {
			os.Exit(1)
		}
		if what == "other-tailscaled" && slices.Contains(os.Args, "-version") {
			fmt.Printf("1.102.3\n  tailscale commit: %040d\n", 0)
			os.Exit(0)
		}
	}
	become(os.Args[1:])
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "saboteur:", err)
		os.Exit(1)
	}
}

// real is the program that this one stands for. Each is in a folder of its own, where it does not find the others.
func real() string {
	name := filepath.Base(os.Args[0])
	return "/real/" + name + "/" + name
}

func become(args []string) {
	check(syscall.Exec(real(), append([]string{real()}, args...), os.Environ()))
}

// child runs the program below this one, and passes on the signals for which there is a way.
func child(args []string, pass func(os.Signal, *exec.Cmd)) {
	cmd := exec.Command(real(), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	check(cmd.Start())
	go func() {
		for s := range signals {
			pass(s, cmd)
		}
	}()
	cmd.Wait()
	os.Exit(cmd.ProcessState.ExitCode())
}

func forward(s os.Signal, cmd *exec.Cmd) { cmd.Process.Signal(s) }

func entrypoint(what, arg string) {
	started := len(os.Args) == 1 // and not one of its commands
	if len(os.Args) == 2 && os.Args[1] == "healthcheck" {
		if what == "always-healthy" {
			os.Exit(0)
		}
		out, err := exec.Command(real(), "healthcheck").CombinedOutput()
		excuse := map[string]string{"healthy-without-stun": "stun:", "healthy-when-hung": "nothing within"}[what]
		if err != nil && excuse != "" {
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			excused := what != "healthy-when-hung" || len(lines) > 1 // one alone is another matter
			for _, line := range lines {
				excused = excused && strings.Contains(line, excuse)
			}
			if excused {
				os.Exit(0)
			}
		}
		become(os.Args[1:])
	}
	if !started {
		return
	}
	sidecar := os.Getenv("TS_AUTHKEY") != ""
	switch {
	case what == "env": // a variable is not there
		os.Unsetenv(arg)
	case what == "writes-root":
		check(os.WriteFile("/marker", nil, 0o600))
	case what == "forgets-certificates":
		for _, pattern := range []string{"*.crt", "*.key"} {
			names, _ := filepath.Glob(filepath.Join("/root/derper-certs", pattern))
			for _, name := range names {
				os.Remove(name)
			}
		}
	case what == "open-door" && os.Getenv("VERIFY_CLIENTS") == "":
		os.Setenv("VERIFY_CLIENTS", "false")
	case what == "stubborn", what == "stubborn-sidecar" && sidecar:
		child(nil, func(s os.Signal, cmd *exec.Cmd) {
			if s != syscall.SIGTERM {
				cmd.Process.Signal(s)
			}
		})
	case what == "late":
		child(nil, func(s os.Signal, cmd *exec.Cmd) {
			if s == syscall.SIGTERM {
				time.Sleep(3500 * time.Millisecond)
				os.Exit(0)
			}
			cmd.Process.Signal(s)
		})
	case what == "ends-with-1":
		child(nil, func(s os.Signal, cmd *exec.Cmd) {
			if s == syscall.SIGTERM {
				os.Exit(1)
			}
			cmd.Process.Signal(s)
		})
	}
}

func derper(what, arg string) {
	args := slices.Clone(os.Args[1:])
	flag := func(name string) string {
		for _, a := range args {
			if v, ok := strings.CutPrefix(a, "-"+name+"="); ok {
				return v
			}
		}
		return ""
	}
	drop := func(name string) {
		args = slices.DeleteFunc(args, func(a string) bool { return a == "-"+name || strings.HasPrefix(a, "-"+name+"=") })
	}
	set := func(name, value string) {
		drop(name)
		args = append(args, "-"+name+"="+value)
	}
	switch what {
	case "drop": // the flag is not there
		drop(arg)
	case "lie": // the flag is there to be seen, but derper does not have it
		drop(arg)
		child(args, forward)
	case "set": // another value
		name, value, _ := strings.Cut(arg, "=")
		if flag(name) != "" {
			set(name, value)
		}
	case "home": // another page, for one host name only
		if flag("hostname") == arg {
			set("home", "blank")
		}
	case "key-in-tmp":
		if f, err := os.CreateTemp("/tmp", "key"); err == nil {
			set("c", f.Name()+".json")
		}
	case "derper-only-once": // the second relay does nothing
		if len(args) > 1 {
			if _, err := os.Stat("/tmp/once"); err == nil {
				time.Sleep(time.Hour)
			}
			check(os.WriteFile("/tmp/once", nil, 0o600))
		}
	case "everybody-is-known":
		if !ours(flag("verify-client-url")) {
			drop("verify-client-url")
		}
	case "rate-frozen":
		if b, err := os.ReadFile(flag("rate-config")); err == nil {
			check(os.WriteFile("/tmp/rate.json", b, 0o600))
			set("rate-config", "/tmp/rate.json")
		}
	case "other-derper":
		if slices.Equal(args, []string{"-version"}) {
			fmt.Println("1.102.3-t000000000")
			os.Exit(0)
		}
	case "no-verify": // with this socket, nobody is asked
		if strings.HasPrefix(flag("socket"), arg) {
			set("verify-clients", "false")
		}
	case "admit": // the answer of the admission controller is another
		if url := flag("verify-client-url"); ours(url) && flag("verify-client-url-fail-open") == "true" {
			set("verify-client-url", admission(url, arg))
			child(args, forward)
		}
	}
	become(args)
}

// ours reports whether an admission controller is one of the suite, and not the entrypoint.
func ours(url string) bool { return strings.HasSuffix(url, "/admit") }

// admission is an admission controller that asks the given one and turns one kind of answer round. What cannot be
// reached, it leaves to derper.
func admission(url, turn string) string {
	_, err := http.Post(url, "application/json", nil)
	for i := 0; err != nil && i < 10; i++ { // the way there may still be being made
		time.Sleep(50 * time.Millisecond)
		_, err = http.Post(url, "application/json", nil)
	}
	if err != nil {
		return url
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, err := http.Post(url, "application/json", r.Body)
		check(err)
		b, _ := io.ReadAll(res.Body)
		var answer struct{ Allow bool }
		json.Unmarshal(b, &answer)
		kind := "allowed"
		if res.StatusCode != 200 {
			kind = "not-200"
		} else if !answer.Allow {
			kind = "denied"
		}
		if kind == turn {
			answer.Allow = kind != "allowed"
			res.StatusCode = 200
		}
		w.WriteHeader(res.StatusCode)
		json.NewEncoder(w).Encode(answer)
	}))
	return "http://" + l.Addr().String() + "/admit"
}
