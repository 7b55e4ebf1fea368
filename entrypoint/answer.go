package main

import (
	"context"
	"errors"

	"github.com/xavieralpha/derper/entrypoint/health"
	"github.com/xavieralpha/derper/entrypoint/localapi"
)

// answer carries out a command of somebody else.
func (p *pod) answer(ctx context.Context, command string) (a localapi.Answer) {
	a = failed(command, errors.New("the relay has been stopped")) // unless the loop still runs
	switch command {
	case "healthcheck":
		return healthAnswer(health.Check(ctx, p.subject()))
	case "env":
		p.do(func() { a = envAnswer(p.relay, nil) })
	case "derpmap":
		p.do(func() { a = derpmapAnswer(p.relay, p.pair.served, p.verdict.address()) })
	case "renew":
		p.do(func() { a = p.renew() })
	default:
		return failed(command, errors.New("the running entrypoint does not know this command; is it of another version?"))
	}
	return a
}
