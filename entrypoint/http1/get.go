// Package http1 sends a request without body over a connection and reads the
// answer: enough for derper's own endpoints and for tailscaled's local API.
// net/http alone would make the program larger than its 4 MB.
package http1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// A Response is the part of an answer that a caller here looks at.
type Response struct {
	Status int
	Body   []byte // the first 256 KiB
}

// maxBody bounds an answer; tailscaled's status is a few kilobytes.
const maxBody = 256 << 10

// A Client sends requests over one connection, one after another.
type Client struct {
	conn   net.Conn
	reader *bufio.Reader
	host   string
}

// New returns a client that names host in its requests.
func New(conn net.Conn, host string) *Client {
	return &Client{conn: conn, reader: bufio.NewReader(conn), host: host}
}

// Do sends a request and reads the whole answer.
func (c *Client) Do(method, path string) (Response, error) {
	if _, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", method, path, c.host); err != nil {
		return Response{}, err
	}
	r, err := c.read()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return r, err
}

func (c *Client) read() (Response, error) {
	line, err := c.line()
	if err != nil {
		return Response{}, err
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") {
		return Response{}, errors.New("the answer is no HTTP")
	}
	length, chunked := -1, false
	for {
		if line, err = c.line(); err != nil {
			return Response{}, err
		}
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.Atoi(value); err != nil || length < 0 {
				return Response{}, errors.New("the answer's length is no number")
			}
		case "transfer-encoding":
			chunked = strings.EqualFold(value, "chunked")
		}
	}
	r := Response{Status: status}
	switch {
	case status == 204 || status == 304:
	case chunked:
		r.Body, err = c.chunks()
	case length > maxBody:
		err = errors.New("the answer is too long")
	case length >= 0:
		r.Body = make([]byte, length)
		_, err = io.ReadFull(c.reader, r.Body)
	default:
		r.Body, err = io.ReadAll(io.LimitReader(c.reader, maxBody))
	}
	return r, err
}

func (c *Client) chunks() ([]byte, error) {
	var body []byte
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil || len(body)+int(n) > maxBody {
			return nil, errors.New("the answer is too long or malformed")
		}
		chunk := make([]byte, n)
		if _, err := io.ReadFull(c.reader, chunk); err != nil {
			return nil, err
		}
		body = append(body, chunk...)
		if _, err := c.line(); err != nil {
			return nil, err
		}
		if n == 0 {
			return body, nil
		}
	}
}

// line reads a line of a header, which fits the reader's 4 KiB.
func (c *Client) line() (string, error) {
	b, err := c.reader.ReadSlice('\n')
	return strings.TrimRight(string(b), "\r\n"), err
}
