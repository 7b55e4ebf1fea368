package setting

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// The mistake it guards: an argument that derper reads in another way, or a misspelt one
// that is without effect and without a hint.
func TestArguments(t *testing.T) {
	for _, test := range []struct {
		args    string // separated by spaces
		name    string // of a variable
		want    string // its value
		problem string // "" for none
	}{
		{"-a=:8443", "ADDR", ":8443", ""},
		{"-a :8443", "ADDR", ":8443", ""},
		{"--a :8443", "ADDR", ":8443", ""},
		{"-a=:1 -a=:2", "ADDR", ":2", ""},
		{"-stun", "RUN_STUN", "true", ""},
		{"-stun=false", "RUN_STUN", "false", ""},
		{"-stun=0", "RUN_STUN", "false", ""},
		{"-hostname -", "HOSTNAME", "-", "-hostname=\"-\": use a DNS name"},
		{"-stun false", "RUN_STUN", "true", "false: is neither a flag nor a command"},
		{"-a", "ADDR", ":443", "-a: needs a value"},
		{"-a=", "ADDR", ":443", ""},
		{"-hostnam=x", "HOSTNAME", "127.0.0.1", "-hostnam: derper has no such flag; did you mean -hostname?"},
		{"-http_port=80", "HTTP_PORT", "80", "did you mean -http-port?"},
		{"-verify_clients", "VERIFY_CLIENTS", "true", "did you mean -verify-clients?"},
		{"-certmdoe=manual", "CERT_MODE", "manual", "did you mean -certmode?"},
		{"-nonsense", "ADDR", ":443", "-nonsense: derper has no such flag; --help lists all"},
		{"-", "ADDR", ":443", "-: is neither a flag nor a command; --help lists both"},
		{"---a=:1", "ADDR", ":443", "---a=:1: is neither a flag nor a command"},
		{"-=x", "ADDR", ":443", "is neither a flag nor a command"},
		{"start -a=:1", "ADDR", ":1", "start: is neither a flag nor a command"}, // and what follows counts
	} {
		t.Run(test.args, func(t *testing.T) {
			set, problems := Read(nil, strings.Split(test.args, " "), "")
			var said []string
			for _, p := range problems {
				said = append(said, p.Error())
			}
			if test.problem == "" && said != nil || test.problem != "" && (len(said) != 1 || !strings.Contains(said[0], test.problem)) {
				t.Errorf("problems %q, want %q", said, test.problem)
			}
			if got := set.Get(test.name); got != test.want {
				t.Errorf("%s is %q, want %q", test.name, got, test.want)
			}
		})
	}
}

// The mistake it guards: a variable that --help and `docker inspect` do not have, and a
// secret whose file nobody knows of.
func TestHelpHasAll(t *testing.T) {
	usage, env := Usage(), Env()
	if !slices.IsSorted(env) {
		t.Errorf("not sorted: %q", env)
	}
	for _, v := range Table() {
		entry := "  " + v.Name
		if v.Secret {
			entry += ", " + v.FileName()
		}
		if v.Flag != "" {
			entry += "  (-" + v.Flag + ")"
		}
		if v.Default != "" {
			entry += "  default " + v.Default
		}
		if !strings.Contains("\n"+usage, "\n"+entry+"\n        ") {
			t.Errorf("--help has no %q", entry)
		}
		if has := slices.Contains(env, v.Name+"="+v.Default); has != (v.Flag != "") {
			t.Errorf("%s is in the image's environment: %v", v.Name, has)
		}
	}
	if strings.Contains(usage, "`") {
		t.Error("--help has marks of Markdown")
	}
}

// The mistake it guards: a health check that asks a derper which was started by hand in
// another place than it is, because it takes the image's defaults for derper's.
func TestDerperEnv(t *testing.T) {
	t.Setenv("HOME", "/home/somebody")
	set, problems := Read(append(Env(), DerperEnv()...), nil, "")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, v := range Table() {
		want := strings.ReplaceAll(v.Derper, "$HOME", "/home/somebody")
		if v.Flag == "" || want == "" {
			continue
		}
		want, err := v.parse(want)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if got := set.Get(v.Name); got != want {
			t.Errorf("%s is %q, derper's is %q", v.Name, got, want)
		}
	}
}

// The mistake it guards: a report that shows a password, or hides a value.
func TestShown(t *testing.T) {
	for _, test := range []struct{ env, want string }{
		{"HOSTNAME=derp.example.com", "derp.example.com"},
		{"VERIFY_CLIENT_URL=https://user:password@example.com/x", "https://user:xxxxx@example.com/x"},
		{"TS_AUTHKEY=tskey-1", "(secret)"},
		{"TS_AUTHKEY=", ""},
	} {
		name, _, _ := strings.Cut(test.env, "=")
		set, _ := Read([]string{test.env}, nil, "")
		if got := set.Value(name).Shown(); got != test.want {
			t.Errorf("%s is shown as %q, want %q", test.env, got, test.want)
		}
	}
	set, problems := Read([]string{"VERIFY_CLIENT_URL=http//user:password@%zz"}, nil, "")
	if len(problems) != 1 || strings.Contains(problems[0].Error(), "password") || set.Value("VERIFY_CLIENT_URL").Shown() != "(no URL)" {
		t.Errorf("what is no URL: %v, shown as %q", problems, set.Value("VERIFY_CLIENT_URL").Shown())
	}
}

// The mistake it guards: a change to a set that shows in the one that it was made of.
func TestWith(t *testing.T) {
	set, problems := Read([]string{"STUN_PORT=5", "RUN_STUN=true", "TCP_WRITE_TIMEOUT=90s"}, nil, "")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	changed := set.With("STUN_PORT", "6").With("RUN_STUN", "false")
	if set.Number("STUN_PORT") != 5 || !set.Bool("RUN_STUN") || set.Span("TCP_WRITE_TIMEOUT") != 90*time.Second {
		t.Errorf("before: %q", set.Flags())
	}
	if changed.Number("STUN_PORT") != 6 || changed.Bool("RUN_STUN") || changed.Span("TCP_WRITE_TIMEOUT") != 90*time.Second {
		t.Errorf("after: %q", changed.Flags())
	}
	if !slices.Contains(changed.Flags(), "-stun-port=6") {
		t.Errorf("derper does not get it: %q", changed.Flags())
	}
}
