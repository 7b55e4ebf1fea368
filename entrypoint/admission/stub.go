package admission

import "context"

type Unreachable struct{ Err error }

func (u Unreachable) Error() string { return u.Err.Error() }

type Nodes struct{}

func NewNodes(string, func(string, ...any)) *Nodes { return nil }
func (n *Nodes) Listen() (string, error)           { return "", nil }
func (n *Nodes) Err() error                        { return nil }
func Ask(context.Context, string, bool) error      { return nil }
