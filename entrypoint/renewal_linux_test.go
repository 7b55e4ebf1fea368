package main

import (
	"encoding/pem"
	"os"
	"syscall"
	"time"
)

// newPair makes a pair that is to be served from then on.
func (e *endurance) newPair() (crt, key []byte) {
	crt, key, err := e.ca.sign(e.host, 90*24*time.Hour)
	if err != nil {
		e.Fatal(err)
	}
	block, _ := pem.Decode(crt)
	e.served = block.Bytes
	return append(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.ca.cert.Raw})...), key
}

// replace puts a pair in the place of another one.
func (e *endurance) replace(crt, key []byte) {
	for path, b := range map[string][]byte{e.crt: crt, e.key: key} {
		e.put(path, b)
	}
}

// replaceHalves replaces a pair in two steps, of which the entrypoint sees the first.
func (e *endurance) replaceHalves(first, second string) {
	crt, key := e.newPair()
	pair := map[string][]byte{e.crt: crt, e.key: key}
	kept := e.said(saysKept)
	e.put(first, pair[first])
	e.saysTimes(saysKept, kept+1)
	e.put(second, pair[second])
}

// killBetweenHalves kills derper while there is no pair with which it could start, and
// then takes back what was replaced.
func (e *endurance) killBetweenHalves() {
	served := e.served
	old, err := os.ReadFile(e.crt)
	if err != nil {
		e.Fatal(err)
	}
	kept, ended, unchanged := e.said(saysKept), e.said(saysDerper), e.said(saysUnchanged)
	half, _ := e.newPair()
	e.served = served
	e.put(e.crt, half)
	e.saysTimes(saysKept, kept+1)
	e.kill("derper")
	e.saysTimes(saysDerper, ended+1)
	eventually(e, time.Minute, e.serves)
	e.put(e.crt, old)
	e.inside.signal(e, syscall.SIGHUP)
	e.saysTimes(saysUnchanged, unchanged+1)
}

// put replaces a file as a program does that renews certificates.
func (e *endurance) put(path string, b []byte) {
	e.Helper()
	next := path + ".new"
	err := os.WriteFile(next, b, 0o600)
	if err == nil {
		err = os.Chown(next, 65532, 65532)
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		e.Fatal(err)
	}
}

func (e *endurance) kill(name string) { e.inside.kill(e, name, syscall.SIGKILL) }

// killBoth lets no client in for a while, just when all want to connect.
func (e *endurance) killBoth() {
	for _, sig := range []syscall.Signal{0, syscall.SIGKILL} { // first of all, both are to be old enough
		e.inside.kill(e, "tailscaled", sig)
		e.inside.kill(e, "derper", sig)
	}
}
