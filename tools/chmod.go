package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var modeClause = regexp.MustCompile(`^([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)$`)

func chmod(args []string) error {
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if len(arg) > 1 && arg[0] == '-' && modeClause.MatchString(strings.Split(arg, ",")[0]) { // a mode such as -x, no flag
			args[i] = "a" + arg
			break
		}
	}
	flags := newFlags()
	recursive := flags.BoolP("recursive", "R", false, "folders, with all that is in them")
	verbose := flags.BoolP("verbose", "v", false, "say what is changed")
	like := flags.String("reference", "", "a file whose mode the others get")
	names, err := parse(flags, args, "[-Rv] MODE|--reference=FILE FILE…", 1, -1)
	if err != nil {
		return err
	}
	mode := ""
	if *like != "" {
		info, err := os.Stat(*like)
		if err != nil {
			return err
		}
		mode = strconv.FormatUint(uint64(octal(info.Mode())), 8)
	} else {
		mode, names = names[0], names[1:]
	}
	if _, err := changed(mode, 0); err != nil || len(names) == 0 {
		return usageError{fmt.Errorf("invalid mode %q, or no file", mode)}
	}
	var failed error
	change := func(name string, info fs.FileInfo, err error) {
		if err == nil {
			bits, _ := changed(mode, info.Mode())
			if err = unix.Chmod(name, bits); err != nil {
				err = &fs.PathError{Op: "chmod", Path: name, Err: err}
			} else if *verbose {
				fmt.Printf("%s %04o\n", name, bits)
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "chmod:", err)
			failed = status(1)
		}
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if change(name, info, err); err != nil || !*recursive || !info.IsDir() {
			continue
		}
		filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // change says it
			var info fs.FileInfo
			if err == nil {
				info, err = d.Info()
			}
			if path != name && (err != nil || info.Mode()&fs.ModeSymlink == 0) || path == name && err != nil {
				change(path, info, err)
			}
			return nil
		})
	}
	return failed
}

// changed are the bits of a mode after a change such as 755 or u+x,go=r.
func changed(change string, mode fs.FileMode) (bits uint32, err error) {
	if n, err := strconv.ParseUint(change, 8, 12); err == nil {
		return uint32(n), nil
	}
	bits = octal(mode)
	shifts := map[rune]uint32{'u': 6, 'g': 3, 'o': 0}
	for clause := range strings.SplitSeq(change, ",") {
		parts := modeClause.FindStringSubmatch(clause)
		if parts == nil {
			return 0, fmt.Errorf("invalid mode %q", change)
		}
		who := strings.ReplaceAll(parts[1], "a", "ugo")
		if who == "" {
			who = "ugo"
		}
		for rest := parts[2]; rest != ""; {
			end := 1 + strings.IndexAny(rest[1:]+"+", "+-=")
			sign, letters := rest[0], rest[1:end]
			rest = rest[end:]
			var set, all uint32
			for _, class := range who {
				shift := shifts[class]
				all |= 7<<shift | map[rune]uint32{'u': 0o4000, 'g': 0o2000, 'o': 0o1000}[class]
				for _, letter := range letters {
					switch letter {
					case 'r', 'w', 'x':
						set |= map[rune]uint32{'r': 4, 'w': 2, 'x': 1}[letter] << shift
					case 'X':
						if mode.IsDir() || bits&0o111 != 0 {
							set |= 1 << shift
						}
					case 's':
						set |= map[rune]uint32{'u': 0o4000, 'g': 0o2000}[class]
					case 't':
						set |= 0o1000
					default: // another class
						set |= bits >> shifts[letter] & 7 << shift
					}
				}
			}
			switch sign {
			case '+':
				bits |= set
			case '-':
				bits &^= set
			case '=':
				bits = bits&^all | set
			}
		}
	}
	return bits, nil
}
