package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/derpmap"
	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/localapi"
	"github.com/xavieralpha/derper/entrypoint/printable"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/entrypoint/supervisor"
)

// askPatience is within the timeout of the image's health check.
const askPatience = 4 * time.Second

// ask has the entrypoint that runs the relay carry out a command. Where none
// runs, the command answers from its own environment, and says so.
func ask(command string, args []string) int {
	if len(args) > 0 && command != "env" {
		logf("%s: takes no arguments: it asks the relay that runs; %q is too many", command, args[0])
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	a, err := localapi.Answer{}, localapi.ErrNobody
	if len(args) == 0 {
		a, err = localapi.Ask(ctx, command)
	}
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		logf("%s: the relay does not answer: nothing within %v", command, askPatience)
		return 1
	case !errors.Is(err, localapi.ErrNobody):
		logf("%s: the relay does not answer: %v", command, err)
		return 1
	case command == "healthcheck":
		logf("healthcheck: %v", err)
		return 1
	default:
		a = fromEnvironment(command, args)
	}
	fmt.Fprint(os.Stderr, printable.Text(a.Err))
	fmt.Print(printable.Text(a.Out))
	return a.Code
}

// fromEnvironment answers a command where no relay runs.
func fromEnvironment(command string, args []string) localapi.Answer {
	table, ok := variables()
	if !ok {
		return localapi.Answer{Code: 1}
	}
	machine, _ := os.Hostname() // then none equals it
	set, problems := table.Read(os.Environ(), args, machine)
	r := relay.New(set)
	a := note(command, "no relay runs in this container; this is what a start with these settings gives")
	if command == "env" {
		return a.And(envAnswer(r, problems))
	}
	if len(problems) > 0 {
		a.Code = 1
		return a.And(complaints(problems))
	}
	var cert *certificate.Certificate
	if r.Manual() {
		c, err := r.Pair().Load()
		if errors.Is(err, certificate.ErrMissing) {
			a := failed(command, err)
			a.Err += "hint: start the relay once; it makes a self-signed certificate\n"
			return a
		}
		if err != nil {
			return failed(command, err)
		}
		cert = &c
	}
	if command == "renew" {
		return a.And(renewAnswer(r, cert))
	}
	return a.And(derpmapAnswer(r, cert, ""))
}

func note(command, text string) localapi.Answer {
	return localapi.Answer{Err: line("entrypoint: %s: %s", command, text)}
}

func failed(command string, err error) localapi.Answer {
	a := note(command, err.Error())
	a.Code = 1
	return a
}

func complaints(problems []setting.Problem) (a localapi.Answer) {
	for _, p := range problems {
		a.Err += line("entrypoint: %v", p)
		a.Code = 1
	}
	return a
}

// envAnswer is the table with the values that count.
func envAnswer(r relay.Relay, problems []setting.Problem) localapi.Answer {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, v := range r.Table().Variables() {
		val := r.Value(v.Name)
		fmt.Fprintf(w, "%s=%s\t%s\n", v.Name, val.Shown(), val.Source())
	}
	w.Flush() //nolint:errcheck // into a string
	return localapi.Answer{Out: b.String()}.And(complaints(problems))
}

// derpmapAnswer is what the tailnet policy needs. The peer relay is at an
// address of the tailnet, or behind a tag.
func derpmapAnswer(r relay.Relay, cert *certificate.Certificate, peerRelay string) (a localapi.Answer) {
	a.Out = r.Node(cert).Policy()
	for _, line := range r.Ports() {
		a = a.And(note("derpmap", line))
	}
	if r.PeerRelay() {
		if peerRelay == "" {
			peerRelay = "tag:derp"
			a = a.And(note("derpmap", "tailscaled has not joined yet; put its tag, or its address, in the place of "+peerRelay))
		}
		a.Out += "\n" + derpmap.RelayGrant(peerRelay)
		a = a.And(note("derpmap", "the grant lets the devices of all members use the peer relay; a rule with \"ip\" for it would open derper's debug pages to them. udp port "+r.Get("PEER_RELAY_PORT")+" must be reachable"))
	}
	return a
}

// renewAnswer makes a new self-signed pair.
func renewAnswer(r relay.Relay, cert *certificate.Certificate) localapi.Answer {
	if cert == nil {
		return failed("renew", fmt.Errorf("CERT_MODE=%s renews certificates by itself", r.Get("CERT_MODE")))
	}
	kept, err := r.Pair().Renew(time.Now())
	if err != nil {
		return failed("renew", err)
	}
	fresh, err := r.Pair().Load()
	if err != nil {
		return failed("renew", err)
	}
	a := note("renew", fmt.Sprintf("%s is new, valid until %s; the old pair is kept: %s",
		r.Pair().Crt, fresh.Leaf.NotAfter.UTC().Format("2006-01-02"), strings.Join(kept, ", ")))
	a.Err += "hint: clients accept the relay again when the node in the tailnet policy has the new CertName\n"
	return a.And(localapi.Answer{Out: r.Node(&fresh).Policy()})
}

// healthAnswer is what the image's health check prints.
func healthAnswer(results []health.Result) (a localapi.Answer) {
	var fine []string
	for _, result := range results {
		switch {
		case result.Err != nil:
			a = a.And(failed("healthcheck", fmt.Errorf("%s: %w", result.Part, result.Err)))
		case result.Note != "":
			fine = append(fine, result.Part+" ("+result.Note+")")
		default:
			fine = append(fine, result.Part)
		}
	}
	if a.Code == 0 {
		a.Out = "ok: " + strings.Join(fine, ", ") + "\n"
	}
	return a
}

func printVersion() int {
	version, err := derperVersion(supervisor.New())
	if err != nil {
		logf("version: %v", err)
		return 1
	}
	fmt.Printf("derper %s\n%s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return 0
}

// derperVersion asks the program: what it prints is what it compares.
func derperVersion(s *supervisor.Supervisor) (string, error) {
	out, err := s.Output(supervisor.Command{Path: program("derper"), Args: []string{"-version"}}, 5*time.Second)
	if err != nil {
		return "", fmt.Errorf("derper -version: %w", err)
	}
	return strings.TrimSpace(out), nil
}
