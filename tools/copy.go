package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A copying is a call of cp, or of mv to another file system.
type copying struct {
	recursive, follow, keep, force, ask, stay, verbose bool

	root   fs.FileInfo // the folder that is copied to
	failed error
}

func (c *copying) fail(err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	c.failed = status(1)
}

func cp(args []string) error {
	flags, c := newFlags(), new(copying)
	flags.BoolVarP(&c.recursive, "recursive", "r", false, "folders, with all that is in them, and links as links")
	flags.BoolVarP(&c.recursive, "Recursive", "R", false, "as -r")
	flags.BoolVarP(&c.keep, "preserve", "p", false, "with the owner, the mode and the times")
	flags.BoolVarP(&c.follow, "dereference", "L", false, "what links lead to")
	flags.BoolVarP(&c.force, "force", "f", false, "replace what cannot be written to")
	flags.BoolVarP(&c.ask, "interactive", "i", false, "ask before something is replaced")
	flags.BoolVarP(&c.stay, "no-clobber", "n", false, "replace nothing")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "say what is copied")
	all := flags.BoolP("archive", "a", false, "as -rpP")
	links := flags.BoolP("no-dereference", "P", false, "links as links")
	names, err := parse(flags, args, "[-afiLnpPrv] FILE… FILE|FOLDER", 2, -1)
	if err != nil {
		return err
	}
	c.recursive, c.keep = c.recursive || *all, c.keep || *all
	if !c.recursive && !*links {
		c.follow = true
	}
	err = targets(names, func(from, to string) {
		if c.root, _ = os.Stat(to); c.root != nil && !c.root.IsDir() {
			c.root = nil
		}
		c.copy(from, to, true)
	})
	if err != nil {
		return err
	}
	return c.failed
}

// targets says what becomes what of the arguments of cp and mv.
func targets(names []string, use func(from, to string)) error {
	to := names[len(names)-1]
	info, err := os.Stat(to)
	if folder := err == nil && info.IsDir(); !folder {
		if len(names) > 2 {
			return usageError{fmt.Errorf("%s: is no folder", to)}
		}
		use(names[0], to)
		return nil
	}
	for _, from := range names[:len(names)-1] {
		if base := filepath.Base(from); base == ".." || base == "." || base == "/" {
			use(from, to)
		} else {
			use(from, below(to, base))
		}
	}
	return nil
}

// copy copies a file, or a folder with all that is in it. Of a folder, what can be copied is.
func (c *copying) copy(from, to string, first bool) {
	stat := os.Lstat
	if c.follow {
		stat = os.Stat
	}
	info, err := stat(from)
	if err != nil {
		c.fail(err)
		return
	}
	if info.IsDir() && !c.recursive {
		c.fail(fmt.Errorf("%s: is a folder, which only -r copies", from))
		return
	}
	old, oldErr := os.Lstat(to)
	if oldErr == nil && !info.IsDir() {
		if now, err := os.Stat(to); err == nil && os.SameFile(info, now) || os.SameFile(info, old) {
			c.fail(fmt.Errorf("%s and %s are the same file", from, to))
			return
		}
		if c.stay || c.ask && !agreed("overwrite "+to) {
			return
		}
	}
	if c.verbose {
		fmt.Printf("%s -> %s\n", from, to)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		err = c.folder(from, to, info, first)
	case mode&fs.ModeSymlink != 0:
		link := ""
		if link, err = os.Readlink(from); err == nil {
			if oldErr == nil && !old.IsDir() {
				os.Remove(to) //nolint:errcheck // the next call says it
			}
			err = os.Symlink(link, to)
		}
	case mode&fs.ModeNamedPipe != 0 && c.recursive:
		err = unix.Mkfifo(to, uint32(mode.Perm()))
	case !mode.IsRegular() && c.recursive:
		err = fmt.Errorf("%s: is neither a file nor a folder, and is left out", from)
	default:
		err = c.content(from, to, info)
	}
	if err == nil && c.keep {
		err = keep(to, info)
	}
	if err != nil {
		c.fail(err)
	}
}

func (c *copying) folder(from, to string, info fs.FileInfo, first bool) error {
	if c.root != nil && os.SameFile(info, c.root) && !first {
		return fmt.Errorf("%s: is not copied into itself", from)
	}
	err := os.Mkdir(to, info.Mode().Perm()|0o700)
	if now, statErr := os.Stat(to); errors.Is(err, fs.ErrExist) && statErr == nil && now.IsDir() {
		err = nil
	}
	if err != nil {
		return err
	}
	if first {
		if c.root, err = os.Stat(to); err != nil {
			return err
		}
		if os.SameFile(c.root, info) {
			return fmt.Errorf("%s and %s are the same folder", from, to)
		}
	}
	entries, err := os.ReadDir(from)
	for _, entry := range entries {
		c.copy(below(from, entry.Name()), below(to, entry.Name()), false)
	}
	return err
}

func (c *copying) content(from, to string, info fs.FileInfo) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	const how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	out, err := os.OpenFile(to, how, info.Mode().Perm())
	if err != nil && c.force && os.Remove(to) == nil {
		out, err = os.OpenFile(to, how, info.Mode().Perm())
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// keep gives a copy what the original has. Only root gives files away.
func keep(to string, info fs.FileInfo) error {
	stat := info.Sys().(*syscall.Stat_t)
	if err := os.Lchown(to, int(stat.Uid), int(stat.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		if err := os.Chmod(to, info.Mode()); err != nil {
			return err
		}
	}
	at, err := unix.TimeToTimespec(info.ModTime())
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// agreed asks, and reads an answer.
func agreed(what string) bool {
	fmt.Fprintf(os.Stderr, "%s: %s? ", os.Args[0], what)
	answer, _ := bufio.NewReaderSize(os.Stdin, 16).ReadString('\n')
	return strings.HasPrefix(strings.ToLower(answer), "y")
}

func mv(args []string) error {
	flags := newFlags()
	stay := flags.BoolP("no-clobber", "n", false, "replace nothing")
	newer := flags.BoolP("update", "u", false, "replace nothing that is newer")
	ask := flags.BoolP("interactive", "i", false, "ask before something is replaced")
	verbose := flags.BoolP("verbose", "v", false, "say what is moved")
	flags.BoolP("force", "f", false, "do not ask, as always")
	names, err := parse(flags, args, "[-finuv] FILE… FILE|FOLDER", 2, -1)
	if err != nil {
		return err
	}
	var failed error
	err = targets(names, func(from, to string) {
		info, err := os.Lstat(from)
		if old, oldErr := os.Lstat(to); err == nil && oldErr == nil {
			switch {
			case os.SameFile(info, old):
				err = fmt.Errorf("%s and %s are the same file", from, to)
			case *stay, *newer && !info.ModTime().After(old.ModTime()), *ask && !agreed("overwrite "+to):
				return
			}
		}
		if err == nil {
			if err = os.Rename(from, to); errors.Is(err, syscall.EXDEV) {
				err = moveAcross(from, to)
			}
		}
		var said status
		switch {
		case err == nil && *verbose:
			fmt.Printf("%s -> %s\n", from, to)
		case err != nil:
			if !errors.As(err, &said) {
				fmt.Fprintln(os.Stderr, "mv:", err)
			}
			failed = status(1)
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// moveAcross is mv to another file system: a copy, after which the file is gone.
func moveAcross(from, to string) error {
	c := &copying{recursive: true, keep: true, force: true}
	if c.copy(from, to, true); c.failed != nil {
		return c.failed
	}
	return os.RemoveAll(from)
}
