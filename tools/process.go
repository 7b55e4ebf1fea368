package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

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
				p.user = userName(words[0])
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

// ps prints all processes, whatever of the usual flags asks for them, or those of -p.
func ps(args []string) error {
	var of []string
	for len(args) > 0 {
		switch arg := args[0]; {
		case slices.Contains([]string{"a", "ax", "aux", "-A", "-a", "-e", "-f", "-ef", "-eF", "-x", "-ax", "-aux"}, arg):
		case strings.HasPrefix(arg, "-p") || strings.HasPrefix(arg, "--pid="):
			list := strings.TrimPrefix(strings.TrimPrefix(arg, "--pid="), "-p")
			if list == "" && len(args) > 1 {
				args, list = args[1:], args[1]
			}
			of = append(of, strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })...)
			if list == "" {
				return usageError{errors.New("-p: no number of a process")}
			}
		default:
			return usageError{fmt.Errorf("%s is not known; usage: ps [aux | -ef] [-p PID[,PID]…]", arg)}
		}
		args = args[1:]
	}
	for _, pid := range of {
		if _, err := strconv.ParseUint(pid, 10, 31); err != nil {
			return usageError{fmt.Errorf("invalid number %q", pid)}
		}
	}
	list, err := processes()
	if err != nil {
		return err
	}
	if len(of) > 0 {
		list = slices.DeleteFunc(list, func(p process) bool { return !slices.Contains(of, strconv.Itoa(p.pid)) })
	}
	w := table("PID", "PPID", "USER", "STATE", "RSS KiB", "COMMAND")
	for _, p := range list {
		row(w, p.pid, p.parent, p.user, p.state, p.memory, p.command)
	}
	if err := w.Flush(); err != nil || len(list) > 0 {
		return err
	}
	return status(1) // no process has that number
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
	flags := newFlags()
	group := flags.BoolP("group", "g", false, "the group")
	only := flags.BoolP("user", "u", false, "the user")
	all := flags.BoolP("groups", "G", false, "the numbers of all groups")
	names := flags.BoolP("name", "n", false, "with -g or -u: its name")
	if _, err := parse(flags, args, "[-Ggnu]", 0, 0); err != nil {
		return err
	}
	uid, gid := strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
	text := ""
	switch {
	case *only && *names:
		text = userName(uid)
	case *only:
		text = uid
	case *group && *names:
		text = groupName(gid)
	case *group:
		text = gid
	default:
		groups, err := os.Getgroups()
		if err != nil {
			return err
		}
		if !slices.Contains(groups, os.Getegid()) {
			groups = append([]int{os.Getegid()}, groups...)
		}
		if text = strings.Trim(fmt.Sprint(groups), "[]"); !*all {
			text = fmt.Sprintf("uid=%s(%s) gid=%s(%s) groups=%s", uid, userName(uid), gid, groupName(gid), text)
		}
	}
	_, err := fmt.Println(text)
	return err
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
		if _, err := fmt.Println(variable); err != nil {
			return err
		}
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
	if _, err := parse(newFlags(), args, "(it is not changed)", 0, 0); err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	_, err = fmt.Println(name)
	return err
}

// which prints where the shell finds programs.
func which(args []string) error {
	names, err := parse(newFlags(), args, "PROGRAM…", 1, -1)
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		if path, err := exec.LookPath(name); err != nil {
			failed = status(1)
		} else if _, err := fmt.Println(path); err != nil {
			return err
		}
	}
	return failed
}

func uname(args []string) error {
	flags := newFlags()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	all := flags.BoolP("all", "a", false, "all of it")
	var show []*bool
	texts := [][]byte{u.Sysname[:], u.Nodename[:], u.Release[:], u.Version[:], u.Machine[:]}
	for _, f := range [][2]string{{"kernel", "s"}, {"nodename", "n"}, {"release", "r"}, {"version", "v"}, {"machine", "m"}} {
		show = append(show, flags.BoolP(f[0], f[1], false, "the "+f[0]))
	}
	if _, err := parse(flags, args, "[-amnrsv]", 0, 0); err != nil {
		return err
	}
	var words []string
	for i, text := range texts {
		if *show[i] || *all || flags.NFlag() == 0 && i == 0 {
			words = append(words, unix.ByteSliceToString(text))
		}
	}
	_, err := fmt.Println(strings.Join(words, " "))
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
