package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func df(args []string) error {
	flags := newFlags()
	human := flags.BoolP("human-readable", "h", false, "in units that are easy to read, not in KiB")
	inodes := flags.BoolP("inodes", "i", false, "inodes in place of bytes")
	kinds := flags.BoolP("print-type", "T", false, "the kinds of the file systems, too")
	flags.BoolP("kibibytes", "k", false, "in KiB, as always")
	names, err := parse(flags, args, "[-hikT] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	of, kindOf := map[string]string{}, map[string]string{} // what is mounted, by folder
	var folders []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 {
			if of[f[1]], kindOf[f[1]] = f[0], f[2]; !slices.Contains(folders, f[1]) {
				folders = append(folders, f[1])
			}
		}
	}
	all := len(names) == 0
	if all {
		names = folders
	}
	first := "FILESYSTEM"
	if *kinds {
		first += "\tTYPE"
	}
	w := table(first, "SIZE", "USED", "FREE", "USE%", "MOUNTED ON")
	var failed error
	for _, name := range names {
		var s unix.Statfs_t
		if err := unix.Statfs(name, &s); err != nil {
			if !all {
				fmt.Fprintf(os.Stderr, "df: %s: %v\n", name, err)
				failed = status(1)
			}
			continue
		}
		total, free, left, unit := s.Blocks, s.Bfree, s.Bavail, uint64(s.Bsize)
		if *inodes {
			total, free, left, unit = s.Files, s.Ffree, s.Ffree, 1
		}
		if total == 0 {
			if all {
				continue // proc and its like
			}
			total = 1
		}
		size := func(n uint64) string {
			switch {
			case *inodes:
				return strconv.FormatUint(n, 10)
			case *human:
				return units(n * unit)
			}
			return strconv.FormatUint(n*unit/1024, 10)
		}
		at := mountOf(name, folders)
		from := of[at]
		if *kinds {
			from += "\t" + kindOf[at]
		}
		row(w, from, size(total), size(total-free), size(left), fmt.Sprintf("%d%%", (total-free)*100/total), at)
	}
	return errors.Join(failed, w.Flush())
}

// mountOf is the folder of the file system that a file is on.
func mountOf(name string, folders []string) (at string) {
	name, _ = filepath.Abs(name)
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	for _, folder := range folders {
		if len(folder) > len(at) && strings.HasPrefix(name+"/", strings.TrimSuffix(folder, "/")+"/") {
			at = folder
		}
	}
	return at
}

// units writes bytes in units of 1024.
func units(n uint64) string {
	size, unit := float64(n), ""
	for _, u := range []string{"K", "M", "G", "T"} {
		if size < 1024 {
			break
		}
		size, unit = size/1024, u
	}
	if unit == "" || size >= 10 {
		return fmt.Sprintf("%.0f%s", size, unit)
	}
	return fmt.Sprintf("%.1f%s", size, unit)
}
