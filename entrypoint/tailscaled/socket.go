package tailscaled

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// silent says why a socket gives no status.
func (v Verifier) silent(err error) Reason {
	socket := resolve(v.Socket)
	info, statErr := os.Stat(socket)
	dir := filepath.Dir(socket)
	var answer *answerError
	var op *net.OpError
	switch {
	case errors.As(err, &answer):
		return Reason{fmt.Sprintf("what listens at %s gives no status of a tailscaled: %s", v.Socket, answer.Text), v.hintPath()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EAGAIN):
		// EAGAIN: nobody has taken connections for so long that no more fit.
		return Reason{fmt.Sprintf("%s at %s does not answer: nothing within %v", v.name(), v.Socket, Patience), v.hintDead()}
	case v.Own && (gone(dir) || gone(socket)):
		return Reason{fmt.Sprintf("%s was deleted", v.Socket), "restart the container"}
	case gone(socket):
		return Reason{
			fmt.Sprintf("the host has made %s anew, as when tailscaled is restarted there, and this container still has the old one", v.Socket),
			"restart this container; to keep it from happening again, mount the folder, not the socket: " + mountFolder,
		}
	case gone(dir):
		return Reason{
			fmt.Sprintf("the host has made %s anew, as when tailscaled is upgraded there, and this container still has the old one, without a tailscaled", dir),
			"restart this container; to keep it from happening again, let the host keep the folder: systemctl edit tailscaled, [Service], RuntimeDirectoryPreserve=yes; or mount the folder above it: -v /run:/host/run:ro,rslave -e SOCKET=/host/run/tailscale/tailscaled.sock",
		}
	case errors.Is(err, fs.ErrPermission):
		return v.forbidden(socket)
	case errors.Is(statErr, fs.ErrNotExist), errors.Is(statErr, syscall.ENOTDIR):
		return v.missing(socket)
	case statErr == nil && info.Mode()&fs.ModeSocket == 0:
		what := "is a file, not a socket"
		if info.IsDir() { // Docker makes one in place of what it cannot find
			what = "is a folder, not a socket"
		}
		return Reason{fmt.Sprintf("%s %s", v.Socket, what), v.hintPath()}
	case errors.Is(err, syscall.ECONNREFUSED):
		return Reason{fmt.Sprintf("%s does not run: nobody listens at %s", v.name(), v.Socket), v.hintDead()}
	case errors.As(err, &op) && op.Op == "dial":
		return Reason{fmt.Sprintf("%s at %s does not answer: %v", v.name(), v.Socket, op.Err), v.hintDead()}
	}
	return Reason{fmt.Sprintf("what listens at %s gives no status of a tailscaled: %v", v.Socket, err), v.hintPath()}
}

const mountFolder = "-v /var/run/tailscale:/var/run/tailscale"

func (v Verifier) hintPath() string {
	if v.Own {
		return "restart the container"
	}
	return "mount the folder of the host's tailscaled, not the socket: " + mountFolder + "; SOCKET must name the socket in it"
}

func (v Verifier) hintDead() string {
	if v.Own {
		return "" // it is started again
	}
	return "start it on the host: systemctl restart tailscaled"
}

func (v Verifier) missing(socket string) Reason {
	if v.Own {
		return Reason{fmt.Sprintf("tailscaled does not answer: it has not made its socket %s yet", v.Socket), ""}
	}
	r := Reason{
		fmt.Sprintf("VERIFY_CLIENTS=true, but there is no tailscaled at %s", v.Socket),
		"mount the host's: " + mountFolder + "; or use the one in this image: TS_AUTHKEY_FILE; or let everybody in: VERIFY_CLIENTS=false",
	}
	if v.HasURL {
		r.Hint = "to leave verification to VERIFY_CLIENT_URL: VERIFY_CLIENTS=false; or mount the host's tailscaled: " + mountFolder + "; or use the one in this image: TS_AUTHKEY_FILE"
	}
	_, err := os.Stat(filepath.Dir(socket))
	switch {
	case socket == filepath.Join(folder(), socketName): // an image with upstream's client has that link
		r.What += ": the host's is not mounted"
	case socket != v.Socket:
		r.What += ": it is a link to " + socket + ", which does not exist here"
	case err != nil:
		r.What += ": there is no folder " + filepath.Dir(socket)
	default:
		r.What += ": its folder has no such socket"
		r.Hint += "; or, if the folder is the host's, start tailscaled there"
	}
	return r
}

// forbidden names what this user may not pass, and whose it is.
func (v Verifier) forbidden(socket string) Reason {
	uid := os.Getuid()
	// A file can be looked at where its folder can be entered.
	path := socket
	info, err := os.Stat(path)
	for err != nil && filepath.Dir(path) != path {
		path = filepath.Dir(path)
		info, err = os.Stat(path)
	}
	if err != nil {
		return Reason{fmt.Sprintf("uid %d may not use %s", uid, v.Socket), ""}
	}
	do, bit := "use", fs.FileMode(2)
	if info.IsDir() {
		do, bit = "enter", 1
	}
	owner := info.Sys().(*syscall.Stat_t)
	r := Reason{What: fmt.Sprintf("uid %d may not %s %s (owner %d:%d, mode %v)", uid, do, path, owner.Uid, owner.Gid, info.Mode())}
	switch perm := info.Mode().Perm(); {
	case allows(perm, bit, owner):
		r.What += ", although its mode lets it: a security module of the host, such as SELinux or AppArmor, does not"
		r.Hint = "allow it there; with SELinux: --security-opt label=disable"
	case do == "enter":
		r.Hint = fmt.Sprintf("on the host: chmod a+x %s; or run the container as its owner: --user %d:%d", path, owner.Uid, owner.Gid)
	default:
		r.Hint = fmt.Sprintf("on the host: chmod a+rw %s; or run the container as its owner: --user %d:%d", v.Socket, owner.Uid, owner.Gid)
	}
	return r
}

// allows reports whether a mode lets this user do what a bit of it stands for.
func allows(perm, bit fs.FileMode, owner *syscall.Stat_t) bool {
	groups, _ := os.Getgroups()
	switch {
	case int(owner.Uid) == os.Geteuid():
		return perm&(bit<<6) != 0
	case int(owner.Gid) == os.Getegid() || slices.Contains(groups, int(owner.Gid)):
		return perm&(bit<<3) != 0
	}
	return perm&bit != 0
}

// gone reports whether the thing at a path was deleted, and only a mount still
// leads there: when systemd stops tailscaled, it deletes the folder in /run.
func gone(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

// resolve follows links to what may not exist.
func resolve(path string) string {
	for range 8 {
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}
