package main

import (
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/setting"
)

// The mistake it guards: a health check that asks at the port of a variable
// when the relay got another one as an argument.
func TestSettingsOfProcess(t *testing.T) {
	environ := []string{"ADDR=:1", "CERT_MODE=manual", "VERIFY_CLIENTS=true"}
	for cmdline, want := range map[string]string{
		"/usr/local/bin/derper -a=:2 -certmode=letsencrypt": ":2 letsencrypt false",
		"/usr/local/bin/derper":                             ":443 letsencrypt false",
		"/entrypoint":                                       ":1 manual true",
		"/entrypoint -a :2":                                 ":2 manual true",
		"/entrypoint derper -a :2":                          ":2 letsencrypt false",
		"/sbin/docker-init -- /entrypoint -a :2":            ":2 manual true",
		"/run/podman-init -- /entrypoint -verify-clients=0": ":1 manual false",
		"/pause":                           ":1 manual true",
		"/sbin/init splash":                ":1 manual true",
		"/usr/local/bin/tailscaled derper": ":1 manual true",
	} {
		env, args := ofProcess(strings.Fields(cmdline), environ)
		set, problems := setting.Read(env, args)
		got := set.Get("ADDR") + " " + set.Get("CERT_MODE") + " " + set.Get("VERIFY_CLIENTS")
		if len(problems) > 0 || got != want {
			t.Errorf("%s: %v, %q, want %q", cmdline, problems, got, want)
		}
	}
}
