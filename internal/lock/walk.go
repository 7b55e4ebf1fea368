package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// walk reads a document against the type that it is to be decoded into, and refuses
// what encoding/json lets pass: keys that are unknown, repeat or differ in case,
// null, and a second document. Its errors have the line and column of the piece at
// fault, and its key.
func walk(data []byte, t reflect.Type) error {
	var document json.RawMessage
	if err := json.Unmarshal(data, &document); err != nil {
		var syntax *json.SyntaxError
		if !errors.As(err, &syntax) {
			return err
		}
		if strings.HasPrefix(syntax.Error(), "unexpected end") {
			return fmt.Errorf("%s: not JSON: the document ends too early", position(data, len(data)))
		}
		return fmt.Errorf("%s: not JSON: %w", position(data, int(syntax.Offset)-1), err)
	}
	w := &walker{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	w.dec.UseNumber()
	return w.value(t, "")
}

// walker goes over the tokens of a document that is JSON.
type walker struct {
	data []byte
	dec  *json.Decoder
	at   int // where the last token begins
}

func (w *walker) token() (json.Token, error) {
	before := int(w.dec.InputOffset())
	tok, err := w.dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	rest := w.data[before:]
	w.at = before + len(rest) - len(bytes.TrimLeft(rest, " \t\r\n,:"))
	return tok, err
}

func (w *walker) fail(format string, args ...any) error {
	return fmt.Errorf("%s: %w", position(w.data, w.at), fmt.Errorf(format, args...))
}

// value reads the value of a key, "" for the document.
func (w *walker) value(t reflect.Type, key string) error {
	tok, err := w.token()
	if err != nil {
		return err
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	wrong := func(want string) error {
		if key == "" {
			return w.fail("the document wants to be %s, is %s", want, describe(tok))
		}
		return w.fail("key %q wants %s, has %s", key, want, describe(tok))
	}
	if t == reflect.TypeFor[time.Time]() {
		text, ok := tok.(string)
		if _, err := time.Parse(time.RFC3339, text); !ok || err != nil {
			return wrong("a time such as 2026-08-19T19:07:43Z")
		}
		return nil
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if tok != json.Delim('{') {
			return wrong("an object")
		}
		return w.object(t, key)
	case reflect.Slice:
		if tok != json.Delim('[') {
			return wrong("a list")
		}
		for i := 0; w.dec.More(); i++ {
			if err := w.value(t.Elem(), fmt.Sprintf("%s[%d]", key, i)); err != nil {
				return err
			}
		}
		_, err = w.token()
		return err
	case reflect.Int:
		number, ok := tok.(json.Number)
		if _, err := strconv.Atoi(string(number)); !ok || err != nil {
			return wrong("a whole number")
		}
		return nil
	}
	if _, ok := tok.(string); !ok {
		return wrong("a string")
	}
	return nil
}

// object reads the rest of an object, to its closing brace.
func (w *walker) object(t reflect.Type, key string) error {
	seen := map[string]bool{}
	for w.dec.More() {
		tok, err := w.token()
		if err != nil {
			return err
		}
		name := tok.(string) // the document is JSON
		path := strings.TrimPrefix(key+"."+name, ".")
		of, ok := member(t, name)
		if !ok {
			return w.fail("unknown key %q", path)
		}
		if seen[name] {
			return w.fail("key %q stands twice", path)
		}
		seen[name] = true
		if err := w.value(of, path); err != nil {
			return err
		}
	}
	_, err := w.token()
	return err
}

// member is the type of an object's member.
func member(t reflect.Type, name string) (reflect.Type, bool) {
	if t.Kind() == reflect.Map {
		return t.Elem(), true
	}
	for i := range t.NumField() {
		if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag == name {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

// describe is a token in words.
func describe(tok json.Token) string {
	switch tok := tok.(type) {
	case nil:
		return "null"
	case json.Delim:
		if tok == '{' {
			return "an object"
		}
		return "a list"
	case json.Number:
		return "the number " + tok.String()
	case string:
		return strconv.Quote(tok)
	}
	return fmt.Sprint(tok)
}

func position(data []byte, offset int) string {
	before := data[:min(max(offset, 0), len(data))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}
