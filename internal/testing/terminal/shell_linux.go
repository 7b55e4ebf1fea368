package terminal

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Shell expects of a shell what a person at a terminal does. Its prompt is "> ".
func Shell(t *testing.T, cmd *exec.Cmd) {
	const (
		prompt                    = "> "
		up, down, left, backspace = "\x1b[A", "\x1b[B", "\x1b[D", "\x7f"
		home, interrupt, end      = "\x01", "\x03", "\x04" // Ctrl-A, Ctrl-C, Ctrl-D
	)
	sh := Start(t, cmd)
	sh.Type("", prompt)
	sh.Type("echo fi''rst\r", "first\r\n", prompt)
	sh.Type("echo sec''ond\r", "second\r\n", prompt)

	// History, and changing a line.
	sh.Type(up+up+"\r", "first\r\n", prompt)
	sh.Type(up+up+down+"\r", "first\r\n", prompt)
	sh.Type("ech la''ast"+left+left+backspace+home+left+"\x1b[C\x1b[C\x1b[Co\r", "last\r\n", prompt)

	// Jobs of a pipe, exit codes, statements of several lines, a mistake.
	sh.Type("ls / | grep etc | head -n 1; echo $? lis''ted\r", "etc\r\n0 listed\r\n", prompt)
	sh.Type("sh -c 'exit 7'; echo code $?\r", "code 7\r\n", prompt)
	sh.Type("false; echo code $?\r", "code 1\r\n", prompt)
	sh.Type("no-such-program; echo code $?\r", "code 127\r\n", prompt)
	sh.Type("for i in a b\rdo echo $i$i\rdone\r", "aa\r\nbb\r\n", prompt)
	sh.Type("echo ;; oops\r", "sh: ", prompt)
	sh.Type("echo code $?\r", "code 2\r\n", prompt)

	// Keys that are typed ahead are for the program that reads them.
	sh.Type("echo rea''dy; head -n 1; echo af''ter\r", "ready\r\n")
	sh.Type("for he''ad\n", "for he''ad\r\nafter\r\n", prompt)

	// Ctrl-C ends the program that runs with the rest of the line, and a line that is being
	// typed; the shell stays.
	sh.Type("echo rea''dy; cat; echo ne''ver\r", "ready\r\n")
	sh.Type("pi'ng\n", "pi'ng\r\npi'ng\r\n")
	sh.Type(interrupt, "^C\r\n"+prompt)
	sh.Type("echo code $?\r", "code 130\r\n", prompt)
	sh.Type("while :; do echo lo''op; sleep 0.1; done\r", "loop\r\n")
	sh.Type(interrupt, "^C", prompt)
	sh.Type("echo rea''dy; while :; do :; done\r", "ready\r\n")
	sh.Type(interrupt, "^C\r\n"+prompt)
	sh.Type("echo ne''ver", "ne''ver")
	sh.Type(interrupt, "^C\r\n"+prompt)
	sh.Type("if tr''ue\r", prompt)
	sh.Type(interrupt, "^C\r\n"+prompt)

	sh.Type("echo rea''dy; read x; echo ne''ver\r", "ready\r\n")
	sh.Type("ne''ver"+interrupt, "^C\r\n"+prompt)
	sh.Type("read -rp 'na''me? ' x; echo \"<$x>\"\r", "name? ")
	sh.Type("so''me\r", "<so''me>\r\n", prompt)

	// Ctrl-\ ends a program.
	sh.Type("sh -c 'echo rea\"\"dy; sleep 100'; echo co''de $?\r", "ready\r\n")
	sh.Type("\x1c", "code 131\r\n", prompt)

	// Background jobs go on when their line has ended, and do not read what is typed.
	sh.Type("(cat; sleep 0.2; echo la''ter) &\r", "later")
	sh.Type("echo $0 go''es on\r", "sh goes on\r\n", prompt)

	// Tab after a change of folder, and a terminal that becomes narrower.
	sh.Type("cd /\r", prompt)
	sh.Type("echo et\t\r", "etc/\r\n", prompt)
	sh.Type("echo wi''dth", "wi''dth")
	if err := unix.IoctlSetWinsize(int(sh.person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 50}); err != nil {
		t.Fatal(err)
	}
	sh.Type("", prompt+"echo wi''dth")
	sh.Type("\r", "width\r\n", prompt)

	// A shell in the shell.
	sh.Type("sh\r", prompt)
	sh.Type("echo rea''dy; cat\r", "ready\r\n")
	sh.Type("po'ng\n", "po'ng\r\npo'ng\r\n")
	sh.Type(interrupt, "^C\r\n"+prompt)
	sh.Type("exit 5\r", prompt)
	sh.Type("echo code $?\r", "code 5\r\n", prompt)

	sh.Type("trap 'echo fare''well' EXIT; cd /\r", prompt)
	sh.Ends(end, 0)
}
