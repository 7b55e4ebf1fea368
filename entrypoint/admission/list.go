package admission

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	maxFile       = 8 << 20 // bytes: a hundred thousand nodes
	maxLine       = 64 << 10
	maxComplaints = 10
)

// A nodeKey is the public key of a node.
type nodeKey [32]byte

func (k nodeKey) String() string { return "nodekey:" + hex.EncodeToString(k[:]) }

// parseKey reads the form that tailscale prints. An error does not have the
// text in it, which may be a secret in the wrong file.
func parseKey(text string) (k nodeKey, err error) {
	digits, ok := strings.CutPrefix(text, "nodekey:")
	if ok && len(digits) == 2*len(k) {
		if _, err = hex.Decode(k[:], []byte(digits)); err == nil && k != (nodeKey{}) {
			return k, nil
		}
	}
	return k, errors.New("is no node key, which is nodekey: and 64 hexadecimal digits")
}

// A list is what a file of node keys had in it when it was read.
type list struct {
	keys       map[nodeKey]bool
	complaints []string // about single lines
	err        error    // why there are no keys
	sum        [sha256.Size]byte

	info    fs.FileInfo // nil if there was none
	settled bool        // info tells whether the file changed
}

// same reports whether two lists come from the same content, or lack of it.
func (l list) same(other list) bool {
	return l.sum == other.sum && fmt.Sprint(l.err) == fmt.Sprint(other.err)
}

// refresh reads the file if it may have changed, and reports whether it did
// read it. A file that is swapped, as Kubernetes does with a link, is another
// file.
func (l *list) refresh(path string, now time.Time) (read bool) {
	info, err := os.Stat(path)
	if err == nil && l.settled && os.SameFile(info, l.info) && info.Size() == l.info.Size() && info.ModTime().Equal(l.info.ModTime()) {
		return false
	}
	*l = list{info: info}
	if err == nil {
		err = l.read(path, info)
		// The clock of a file system ticks slowly: what is written to it just
		// after it was read may leave the time as it is. And what lets a file
		// be read may do so, too.
		l.settled = err == nil && now.Sub(info.ModTime()).Abs() > 2*time.Second
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("there is no file %s; mount it there, with a node key in each line", path)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("uid %d may not read %s; make it readable", os.Getuid(), path)
	case err != nil:
		err = fmt.Errorf("%s: %w", path, err)
	case len(l.keys) == 0:
		err = fmt.Errorf("no node key is in %s; add one in each line, like nodekey:… (PublicKey in tailscale status --json)", path)
	}
	if l.err = err; err != nil {
		l.keys = nil
	}
	return true
}

func (l *list) read(path string, info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.New("is a folder; name a file in it")
	case !info.Mode().IsRegular(): // a pipe can be read once
		return errors.New("is no regular file")
	case info.Size() > maxFile:
		return fmt.Errorf("is larger than %d MiB", maxFile>>20)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	l.keys = make(map[nodeKey]bool)
	sum := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(io.LimitReader(f, maxFile), sum))
	lines.Buffer(nil, maxLine)
	bad := 0
	number := 1
	for ; lines.Scan(); number++ {
		text := strings.TrimPrefix(lines.Text(), "\ufeff")
		text, _, _ = strings.Cut(text, "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		key, err := parseKey(text)
		if err == nil {
			l.keys[key] = true
			continue
		}
		if bad++; bad <= maxComplaints {
			l.complaints = append(l.complaints, fmt.Sprintf("%s, line %d: %v", path, number, err))
		}
	}
	if bad > maxComplaints {
		l.complaints = append(l.complaints, fmt.Sprintf("%s: %d more lines are no node keys", path, bad-maxComplaints))
	}
	sum.Sum(l.sum[:0])
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("line %d is longer than %d bytes; put one node key in each line", number, maxLine)
	} else if err != nil {
		return err
	}
	return nil
}
