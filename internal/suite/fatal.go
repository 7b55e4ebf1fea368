package suite

import "fmt"

// A case is a test: it ends with its first error, which nobody else could do anything about. So cases, and what only
// they call, say must where other code hands errors on.

// fatal is how an error ends a case.
type fatal struct{ error }

// must ends the case with an error, if it is one.
func must(err error) {
	if err != nil {
		panic(fatal{err})
	}
}

// get is the value of a call that must not fail.
func get[T any](v T, err error) T {
	must(err)
	return v
}

// fail ends the case.
func fail(format string, args ...any) { must(fmt.Errorf(format, args...)) }

// caught runs a case, or a part of one, and returns the error that ended it.
func caught(run func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fatal:
			err = r.error
		default:
			panic(r)
		}
	}()
	run()
	return nil
}
