// Package document reads and writes the few small JSON documents that the
// entrypoint deals with. encoding/json would do, but costs a quarter of a
// megabyte of the program's 4.
package document

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A Number is a JSON number as it is written.
type Number string

// maxDepth bounds how deep a document may be nested.
const maxDepth = 64

// Parse reads one JSON value: nil, bool, Number, string, []any or
// map[string]any. An error names line and column.
func Parse(b []byte) (any, error) {
	p := &parser{text: string(b)}
	v, err := p.value(0)
	if p.space(); err == nil && p.at < len(p.text) {
		err = errors.New("there is something after the end")
	}
	if err != nil {
		before := p.text[:p.at]
		line := 1 + strings.Count(before, "\n")
		column := len(before) - strings.LastIndexByte(before, '\n')
		return nil, fmt.Errorf("not JSON: line %d, column %d: %w", line, column, err)
	}
	return v, nil
}

// Object reads a JSON object.
func Object(b []byte) (map[string]any, error) {
	v, err := Parse(b)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	return object, nil
}

// Text returns a member that is a string, or "".
func Text(object map[string]any, name string) string {
	s, _ := object[name].(string)
	return s
}

type parser struct {
	text string
	at   int
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// peek returns the next byte that is no space, 0 at the end.
func (p *parser) peek() byte {
	if p.space(); p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deeply")
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		return p.string()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for word, v := range map[string]any{"true": true, "false": false, "null": nil} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return v, nil
		}
	}
	if p.at == len(p.text) {
		return nil, errors.New("it ends too early")
	}
	return nil, fmt.Errorf("%q is not expected here", p.text[p.at])
}

func (p *parser) object(depth int) (any, error) {
	object := make(map[string]any)
	p.at++
	if p.peek() == '}' {
		p.at++
		return object, nil
	}
	for {
		if p.peek() != '"' {
			return nil, errors.New("a member's name in quotes is expected")
		}
		name, err := p.string()
		if err != nil {
			return nil, err
		}
		if p.peek() != ':' {
			return nil, errors.New("a colon is expected")
		}
		p.at++
		if object[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		switch p.peek() {
		case ',':
			p.at++
		case '}':
			p.at++
			return object, nil
		default:
			return nil, errors.New("a comma or } is expected")
		}
	}
}

func (p *parser) array(depth int) (any, error) {
	array := []any{}
	p.at++
	if p.peek() == ']' {
		p.at++
		return array, nil
	}
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
		switch p.peek() {
		case ',':
			p.at++
		case ']':
			p.at++
			return array, nil
		default:
			return nil, errors.New("a comma or ] is expected")
		}
	}
}

func (p *parser) number() (any, error) {
	start := p.at
	digits := func() bool {
		from := p.at
		for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
			p.at++
		}
		return p.at > from
	}
	has := func(set string) bool {
		if p.at < len(p.text) && strings.IndexByte(set, p.text[p.at]) >= 0 {
			p.at++
			return true
		}
		return false
	}
	has("-")
	ok := has("0") || digits()
	if ok && has(".") {
		ok = digits()
	}
	if ok && has("eE") {
		has("+-")
		ok = digits()
	}
	if !ok {
		return nil, errors.New("the number is malformed")
	}
	return Number(p.text[start:p.at]), nil
}

func (p *parser) string() (string, error) {
	p.at++
	var b strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return b.String(), nil
		case c < ' ':
			return "", errors.New("a string has a control character in it")
		case c == '\\':
			r, ok := p.escape()
			if !ok {
				return "", errors.New("a string has a malformed escape in it")
			}
			b.WriteRune(r)
		default:
			r, n := utf8.DecodeRuneInString(p.text[p.at:])
			b.WriteRune(r)
			p.at += n
		}
	}
	return "", errors.New("a string does not end")
}

func (p *parser) escape() (rune, bool) {
	if p.at+1 >= len(p.text) {
		return 0, false
	}
	c := p.text[p.at+1]
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		p.at += 2
		return rune("\"\\/\b\f\n\r\t"[i]), true
	}
	r, ok := p.hex()
	if ok && utf16.IsSurrogate(r) {
		at := p.at
		if low, lowOK := p.hex(); lowOK && utf16.DecodeRune(r, low) != utf8.RuneError {
			return utf16.DecodeRune(r, low), true
		}
		p.at, r = at, utf8.RuneError
	}
	return r, ok
}

// hex reads \uXXXX.
func (p *parser) hex() (rune, bool) {
	if len(p.text) < p.at+6 || p.text[p.at:p.at+2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(p.text[p.at+2:p.at+6], 16, 16)
	if err != nil {
		return 0, false
	}
	p.at += 6
	return rune(n), true
}

// Quote writes a string in JSON form.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
