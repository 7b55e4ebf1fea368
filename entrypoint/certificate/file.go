package certificate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSize is that of the largest file that is read; chains have a few KB.
const maxSize = 1 << 20

// readFile reads a file of the user's. Its errors say what to do; a file that
// does not exist is fs.ErrNotExist, a link to one is not.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, explainPath(path, err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder: Docker makes one when the file to mount does not exist on the host; remove it there, and mount the file", path)
	case !info.Mode().IsRegular(): // to open a named pipe could take forever
		return nil, fmt.Errorf("%s is no regular file; put one there", path)
	case info.Size() > maxSize:
		return nil, fmt.Errorf("%s has %d bytes, too many for a certificate or a key; put the right file there", path, info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, explainPath(path, err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSize))
}

// explainPath says which part of a path an error is about.
func explainPath(path string, err error) error {
	w := follow(path)
	link := w.dangling()
	switch {
	case errors.Is(err, fs.ErrPermission) && w.err != nil:
		return denied("enter", filepath.Dir(w.at), path, err)
	case errors.Is(err, fs.ErrPermission):
		return denied("read", w.at, path, err)
	case errors.Is(err, fs.ErrNotExist) && link != nil:
		through := ""
		if link.path != path {
			through = path + " leads there; "
		}
		return fmt.Errorf("%s is a link to %s, which does not exist here: %smount %s", link.path, link.target, through, w.mount(*link))
	case errors.Is(err, syscall.ELOOP):
		return fmt.Errorf("%s is a link that leads back to itself; put the file there", path)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s cannot be, because %s is not a folder (%w); set CERT_DIR to one", path, filepath.Dir(w.at), syscall.ENOTDIR)
	}
	return err
}

// denied says who may do what this process may not.
func denied(do, blame, path string, err error) error {
	uid := os.Geteuid()
	text := fmt.Sprintf("%s: uid %d may not %s %s", path, uid, do, blame)
	if blame == path {
		text = fmt.Sprintf("uid %d may not %s %s", uid, do, path)
	}
	info, statErr := os.Stat(blame)
	if statErr != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: %w", text, err)
	}
	owner, mode := int(stat.Uid), info.Mode().Perm()
	needs := fs.FileMode(0o4)
	if do == "enter" {
		needs = 0o1
	}
	text = fmt.Sprintf("%s, which belongs to uid %d and has mode %04o: ", text, owner, mode)
	switch {
	case owner == uid && mode&(needs<<6) != 0, owner != uid && mode&needs != 0:
		text += "these allow it, so something like SELinux does not; mount the volume with :z"
	case owner == uid:
		text += "chmod u+rX it"
	default:
		text += fmt.Sprintf("chown it to %d, or start the container with --user %d", uid, owner)
	}
	return errors.New(text)
}

// A walk is what [follow] found on its way.
type walk struct {
	at    string   // without links; the name that could not be looked at, if there is an error
	rest  []string // the names that follow at
	links []link
	err   error
}

// A link is a symbolic link on the way.
type link struct {
	path   string // without other links
	target string // as the link says it
	after  int    // the number of names that follow the link
}

// follow goes along a path name by name, to find the one that an error is
// about.
func follow(path string) walk {
	w := walk{at: "/", rest: strings.Split(path, "/")}
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if name == "" {
			continue
		}
		next := filepath.Join(w.at, name) // "." and ".." are right, as at has no links
		info, err := os.Lstat(next)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 && len(w.links) < 40 {
			var target string
			if target, err = os.Readlink(next); err == nil {
				w.links = append(w.links, link{next, target, len(w.rest)})
				w.rest = append(strings.Split(target, "/"), w.rest...)
				if filepath.IsAbs(target) {
					w.at = "/"
				}
				continue
			}
		}
		w.at = next
		if err != nil {
			w.err = err
			return w
		}
	}
	return w
}

// dangling is the last link whose target has the name that could not be looked
// at.
func (w walk) dangling() *link {
	for i := len(w.links) - 1; i >= 0 && w.err != nil; i-- {
		if len(w.rest) >= w.links[i].after {
			return &w.links[i]
		}
	}
	return nil
}

// mount says what to mount so that a dangling link leads to its file: the
// folder that holds both, such as /etc/letsencrypt for a link from live/ to
// archive/.
func (w walk) mount(l link) string {
	target := l.target
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(l.path), target)
	}
	both := filepath.Dir(target)
	for both != "/" && !strings.HasPrefix(l.path, both+"/") {
		both = filepath.Dir(both)
	}
	switch {
	case both != "/":
		return both + " as a whole, with the link and its target"
	case !filepath.IsAbs(l.target):
		return "the folder of the host that holds both the link and its target (certbot's is /etc/letsencrypt, not live/ alone)"
	case len(w.rest) > l.after: // a folder of the target is missing, with all below it
		return w.at + " too, at the same path"
	}
	return filepath.Dir(target) + " too, at the same path"
}
