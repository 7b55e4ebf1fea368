package lock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Decode reads a document into what it is a document of, and refuses what encoding/json lets pass: keys
// that are unknown, repeat or differ in case, null, and a second document. Its errors
// have the line and column of the piece at fault, and its key.
func Decode(data []byte, document any) error {
	err := json.Unmarshal(data, document, json.RejectUnknownMembers(true), json.WithUnmarshalers(json.UnmarshalFromFunc(refuseNull)))
	var syntax *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return failAt(data, syntax.ByteOffset, "duplicate key %q", key(syntax.JSONPointer))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return failAt(data, int64(len(data)), "not JSON: the document ends too early")
	case errors.As(err, &syntax):
		return failAt(data, syntax.ByteOffset, "not JSON: %w", syntax.Err)
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return failAt(data, semantic.ByteOffset, "unknown key %q", key(semantic.JSONPointer))
	case errors.As(err, &semantic):
		want, have := wanted(semantic.GoType), found(data[semantic.ByteOffset:])
		if semantic.JSONPointer == "" {
			return failAt(data, semantic.ByteOffset, "the document: expected %s, got %s", want, have)
		}
		return failAt(data, semantic.ByteOffset, "key %q wants %s, has %s", key(semantic.JSONPointer), want, have)
	}
	return err
}

// refuseNull is asked before each value is decoded into what v points to.
func refuseNull(d *jsontext.Decoder, v any) error {
	if d.PeekKind() == 'n' {
		return &json.SemanticError{GoType: reflect.TypeOf(v).Elem()}
	}
	return errors.ErrUnsupported // as without this function
}

// key is a place in the document: inputs.platforms[0].
func key(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			token = "[" + token + "]"
		} else if b.Len() > 0 {
			token = "." + token
		}
		b.WriteString(token)
	}
	return b.String()
}

// wanted is what is decoded into a type, in words.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "a time such as 2026-08-19T19:07:43Z"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return "a whole number"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.String:
		return "a string"
	}
	return "an object"
}

// found is the value that data begins with, in words.
func found(data []byte) string {
	tok, err := jsontext.NewDecoder(bytes.NewReader(data)).ReadToken()
	switch {
	case err != nil:
		return err.Error()
	case tok.Kind() == '{':
		return "an object"
	case tok.Kind() == '[':
		return "a list"
	case tok.Kind() == '0':
		return "the number " + tok.String()
	case tok.Kind() == '"':
		return strconv.Quote(tok.String())
	}
	return tok.String()
}

func failAt(data []byte, offset int64, format string, args ...any) error {
	offset += int64(len(data[offset:]) - len(bytes.TrimLeft(data[offset:], " \t\r\n,")))
	before := data[:offset]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Errorf("line %d, column %d: %w", line, column, fmt.Errorf(format, args...))
}
