package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// running returns the settings of the relay in this container. A command that
// `docker exec` starts has the container's environment, but not the arguments
// of `docker run`: those are in process 1. Arguments of the command win.
func running(args []string) (setting.Set, []setting.Problem) {
	environ, given := os.Environ(), []string(nil)
	if b, err := os.ReadFile("/proc/1/cmdline"); err == nil {
		environ, given = ofProcess(strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00"), environ)
	}
	return setting.Read(environ, append(given, args...))
}

// ofProcess returns what the settings of a relay follow from, given the
// arguments of process 1.
func ofProcess(cmdline, environ []string) (env, args []string) {
	for i, arg := range cmdline {
		switch filepath.Base(arg) {
		case "derper":
			if i == 0 {
				// What derper was not told is derper's default, not the image's.
				return append(environ, setting.DerperEnv()...), cmdline[1:]
			}
		case "entrypoint":
			// As process 1, or below an init like docker's --init.
			rest := cmdline[i+1:]
			if len(rest) > 0 && filepath.Base(rest[0]) == "derper" {
				return append(environ, setting.DerperEnv()...), rest[1:]
			}
			if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
				rest = nil
			}
			return environ, rest
		}
		if i == 0 && !strings.Contains(arg, "init") {
			break
		}
	}
	return environ, nil
}

// derperVersion asks the program: what it prints is what it compares.
func derperVersion() (string, error) {
	path := program("derper")
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p, err := os.StartProcess(path, []string{path, "-version"}, &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		return "", fmt.Errorf("start derper: %w", err)
	}
	timer := time.AfterFunc(5*time.Second, func() { p.Kill() })
	defer timer.Stop()
	b, readErr := io.ReadAll(io.LimitReader(r, 4096))
	state, err := p.Wait()
	if err = errors.Join(readErr, err); err != nil {
		return "", fmt.Errorf("derper -version: %w", err)
	}
	if !state.Success() {
		return "", fmt.Errorf("derper -version: %v", state)
	}
	return strings.TrimSpace(string(b)), nil
}
