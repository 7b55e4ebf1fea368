package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// A process is what /proc says of one.
type process struct {
	pid, parent int
	user        string
	state       string
	memory      int // resident, in KiB
	command     string
}

// processes are those that run, by their numbers.
func processes() (list []process, err error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err == nil && len(folders) == 0 {
		err = errors.New("/proc: no processes")
	}
	for _, folder := range folders {
		p := process{}
		p.pid, _ = strconv.Atoi(filepath.Base(folder))
		status, err := os.ReadFile(filepath.Join(folder, "status"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			words := strings.Fields(value)
			if len(words) == 0 {
				continue
			}
			switch key {
			case "Name":
				p.command = "[" + strings.TrimSpace(value) + "]"
			case "State":
				p.state = words[0]
			case "PPid":
				p.parent, _ = strconv.Atoi(words[0])
			case "Uid":
				p.user = words[0]
				if u, err := user.LookupId(words[0]); err == nil {
					p.user = u.Username
				}
			case "VmRSS":
				p.memory, _ = strconv.Atoi(words[0])
			}
		}
		if line, _ := os.ReadFile(filepath.Join(folder, "cmdline")); len(line) > 0 {
			p.command = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b process) int { return a.pid - b.pid })
	return list, err
}

func ps(args []string) error {
	list, err := processes()
	if err != nil {
		return err
	}
	w := table("PID", "PPID", "USER", "STATE", "RSS KiB", "COMMAND")
	for _, p := range list {
		row(w, p.pid, p.parent, p.user, p.state, p.memory, p.command)
	}
	return w.Flush()
}

// table is a table with columns.
func table(columns ...string) *tabwriter.Writer {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	return w
}

func row(w *tabwriter.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, cell)
	}
	fmt.Fprintln(w)
}

// kill takes the signal as -s NAME, -NAME or -NUMBER.
func kill(args []string) error {
	const usage = "usage: kill [-s SIGNAL | -SIGNAL] PID… | -l"
	name := "TERM"
	switch {
	case len(args) > 0 && args[0] == "-l":
		for n := syscall.Signal(1); n < 32; n++ {
			fmt.Println(int(n), strings.TrimPrefix(unix.SignalName(n), "SIG"))
		}
		return nil
	case len(args) > 1 && args[0] == "-s":
		name, args = args[1], args[2:]
	case len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "--": // a PID below 0 only after this
		name, args = args[0][1:], args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	signal := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if n, err := strconv.Atoi(name); err == nil {
		signal = syscall.Signal(n)
	} else if signal == 0 {
		return usageError{fmt.Errorf("no signal %q", name)}
	}
	if len(args) == 0 {
		return usageError{errors.New(usage)}
	}
	var failed error
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err == nil {
			err = syscall.Kill(pid, signal)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "kill: %s: %v\n", arg, err)
			failed = status(1)
		}
	}
	return failed
}

func id(args []string) error {
	flags := new(pflag.FlagSet)
	group := flags.BoolP("group", "g", false, "the group")
	only := flags.BoolP("user", "u", false, "the user")
	names := flags.BoolP("name", "n", false, "with -g or -u: its name")
	if _, err := parse(flags, args, "[-gnu]", 0, 0); err != nil {
		return err
	}
	name := func(id int, of string) string {
		if u, err := user.LookupId(strconv.Itoa(id)); err == nil && of == "user" {
			return u.Username
		}
		if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil && of == "group" {
			return g.Name
		}
		return strconv.Itoa(id)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	switch {
	case *only && *names:
		fmt.Println(name(uid, "user"))
	case *only:
		fmt.Println(uid)
	case *group && *names:
		fmt.Println(name(gid, "group"))
	case *group:
		fmt.Println(gid)
	default:
		groups, err := os.Getgroups()
		fmt.Printf("uid=%d(%s) gid=%d(%s) groups=%s\n", uid, name(uid, "user"), gid, name(gid, "group"), strings.Trim(fmt.Sprint(groups), "[]"))
		return err
	}
	return nil
}

// env prints the environment, or runs a program with some of it changed.
func env(args []string) error {
	for len(args) > 0 {
		name, value, set := strings.Cut(args[0], "=")
		switch {
		case args[0] == "-i" || args[0] == "-":
			os.Clearenv()
		case args[0] == "-u" && len(args) > 1:
			os.Unsetenv(args[1])
			args = args[1:]
		case set && name != "":
			os.Setenv(name, value)
		default:
			return execute(args)
		}
		args = args[1:]
	}
	for _, variable := range os.Environ() {
		fmt.Println(variable)
	}
	return nil
}

// execute takes the place of this program with another.
func execute(args []string) error {
	program, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(program, args, os.Environ())
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return status(127)
	}
	return status(126)
}

func hostname(args []string) error {
	name, err := os.Hostname()
	fmt.Println(name)
	return err
}

func sleep(args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("usage: sleep SECONDS[smhd]…")}
	}
	seconds := 0.0
	for _, arg := range args {
		unit := time.Second
		for end, u := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
			if text, ok := strings.CutSuffix(arg, end); ok {
				arg, unit = text, u
				break
			}
		}
		n, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(n >= 0) { // no number is neither
			return usageError{fmt.Errorf("invalid time %q", arg)}
		}
		seconds += n * unit.Seconds()
	}
	time.Sleep(time.Duration(min(seconds, float64(math.MaxInt64/int64(time.Second))) * float64(time.Second)))
	return nil
}

// layouts are the conversions of date, as layouts of package time.
var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'Z': "MST", 'z': "-0700", 'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January",
}

func date(args []string) error {
	flags := new(pflag.FlagSet)
	utc := flags.BoolP("utc", "u", false, "in UTC")
	rest, err := parse(flags, args, "[-u] [+FORMAT]", 0, 1)
	if err != nil {
		return err
	}
	now, format := time.Now(), "+%a %b %e %T %Z %Y"
	if *utc {
		now = now.UTC()
	}
	if len(rest) > 0 {
		format = rest[0]
	}
	format, ok := strings.CutPrefix(format, "+")
	if !ok {
		return usageError{fmt.Errorf("a format begins with +, and the clock is not set: %q", rest[0])}
	}
	for ; format != ""; format = format[1:] {
		if format[0] != '%' || len(format) == 1 {
			fmt.Print(format[:1])
			continue
		}
		format = format[1:]
		switch layout := layouts[format[0]]; {
		case format[0] == 's':
			fmt.Print(now.Unix())
		case format[0] == 'N':
			fmt.Printf("%09d", now.Nanosecond())
		case layout != "":
			fmt.Print(now.Format(layout))
		default: // %%
			fmt.Print(format[:1])
		}
	}
	fmt.Println()
	return nil
}

func df(args []string) error {
	flags := new(pflag.FlagSet)
	human := flags.BoolP("human-readable", "h", false, "in units that are easy to read, not in KiB")
	inodes := flags.BoolP("inodes", "i", false, "inodes in place of bytes")
	names, err := parse(flags, args, "[-hi] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	of := map[string]string{} // what is mounted, by folder
	var folders []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 {
			if of[f[1]] = f[0]; !slices.Contains(folders, f[1]) {
				folders = append(folders, f[1])
			}
		}
	}
	all := len(names) == 0
	if all {
		names = folders
	}
	w := table("FILESYSTEM", "SIZE", "USED", "FREE", "USE%", "MOUNTED ON")
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
		row(w, of[at], size(total), size(total-free), size(left), fmt.Sprintf("%d%%", (total-free)*100/total), at)
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
