package setting

import (
	"slices"
	"strings"
	"testing"
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
		{"-stun false", "RUN_STUN", "true", "-stun: write -stun=false"},
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
			set, problems := Known().Read(nil, strings.Split(test.args, " "), "")
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

// The mistake it guards: a variable that --help does not have, and a secret whose file
// nobody knows of.
func TestHelpHasAll(t *testing.T) {
	usage := Known().Usage()
	for _, v := range Known().Variables() {
		entry := "  " + v.Name
		if v.Secret {
			entry += ", " + v.FileName()
		}
		if v.Alias != "" {
			entry += ", " + v.Alias
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
	}
	if strings.Contains(usage, "`") {
		t.Error("--help has marks of Markdown")
	}
}

// The mistake it guards: a relay that is known by the name that the runtime gave the
// container, or one that cannot be set where the runtime sets HOSTNAME.
func TestHostname(t *testing.T) {
	for _, test := range []struct{ env, machine, want, source string }{
		{"HOSTNAME=3f2a", "3f2a", "127.0.0.1", "default (HOSTNAME=3f2a is the container's own name)"},
		{"HOSTNAME=derp.example.com", "derp.example.com", "derp.example.com", "environment"},
		{"HOSTNAME=relay", "other", "relay", "environment"},
		{"HOSTNAME=3f2a|DERP_HOSTNAME=derp.example.com", "3f2a", "derp.example.com", "environment DERP_HOSTNAME"},
		{"HOSTNAME=a.example.com|DERP_HOSTNAME=b.example.com", "x", "b.example.com", "environment DERP_HOSTNAME"},
		{"DERP_HOSTNAME=3f2a", "3f2a", "3f2a", "environment DERP_HOSTNAME"},
		{"HOSTNAME=3f2a", "", "3f2a", "environment"},
	} {
		set, problems := Known().Read(strings.Split(test.env, "|"), nil, test.machine)
		val := set.Value("HOSTNAME")
		if len(problems) > 0 || val.Text != test.want || val.Source() != test.source {
			t.Errorf("%s on %s: %q from %q, %v", test.env, test.machine, val.Text, val.Source(), problems)
		}
	}
	set, problems := Known().Read([]string{"DERP_HOSTNAME=a..b"}, nil, "")
	if len(problems) != 1 || problems[0].Name != "DERP_HOSTNAME" || !set.Value("HOSTNAME").Bad {
		t.Errorf("a bad second name: %v", problems)
	}
	set, _ = Known().Read([]string{"DERP_HOSTNAME=a.b"}, []string{"-hostname=c.d"}, "")
	if val := set.Value("HOSTNAME"); val.Text != "c.d" || val.Source() != "argument" {
		t.Errorf("an argument gives %q from %q", val.Text, val.Source())
	}
}

// The mistake it guards: what C programs and derper read is another value than ours.
func TestTwice(t *testing.T) {
	set, _ := Known().Read([]string{"STUN_PORT=5", "STUN_PORT=6"}, nil, "")
	if got := set.Get("STUN_PORT"); got != "5" {
		t.Errorf("of two equal variables, %s counts", got)
	}
}

// The mistake it guards: what surrounds a value in files and lists is taken for a part of it.
func TestMisplaced(t *testing.T) {
	for _, v := range Known().Variables() {
		for text, want := range map[string]string{
			`"x"`:              "remove the quotes",
			"\ufeffx":          "byte order mark",
			v.Name + "=x":      "begins with the variable's own name",
			v.FileName() + "=": "begins with the variable's own name",
		} {
			if _, problems := Known().Read([]string{v.Name + "=" + text}, nil, ""); len(problems) != 1 || !strings.Contains(problems[0].What, want) {
				t.Errorf("%s=%s: %v, want %q", v.Name, text, problems, want)
			}
		}
		_, problems := Known().Read([]string{v.Name + "=/run/secrets/x"}, nil, "")
		if fine := v.Type == Path || v.Name == "SECRETS_PREFIX"; fine != (len(problems) == 0) {
			t.Errorf("%s is a path: %v", v.Name, problems)
		}
		if v.Secret && (len(problems) != 1 || !strings.Contains(problems[0].What, "set "+v.FileName()+" to the path")) {
			t.Errorf("%s is a path: %v", v.Name, problems)
		}
	}
}

// The mistake it guards: a flag that seems to be switched off by the word behind it.
func TestSeparateBool(t *testing.T) {
	set, problems := Known().Read(nil, []string{"-verify-clients", "false", "-stun-port", "5"}, "")
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "-verify-clients: write -verify-clients=false") || set.Get("STUN_PORT") != "5" {
		t.Errorf("%v", problems)
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
		set, _ := Known().Read([]string{test.env}, nil, "")
		if got := set.Value(name).Shown(); got != test.want {
			t.Errorf("%s is shown as %q, want %q", test.env, got, test.want)
		}
	}
	set, problems := Known().Read([]string{"VERIFY_CLIENT_URL=http//user:password@%zz"}, nil, "")
	if len(problems) != 1 || strings.Contains(problems[0].Error(), "password") || set.Value("VERIFY_CLIENT_URL").Shown() != "(no URL)" {
		t.Errorf("what is no URL: %v, shown as %q", problems, set.Value("VERIFY_CLIENT_URL").Shown())
	}
}

// The mistake it guards: a change to a set that shows in the one that it was made of.
func TestWith(t *testing.T) {
	set, problems := Known().Read([]string{"STUN_PORT=5", "RUN_STUN=true", "TCP_WRITE_TIMEOUT=90s"}, nil, "")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	changed := set.With("STUN_PORT", "6", "why").With("RUN_STUN", "false", "")
	if set.Number("STUN_PORT") != 5 || !set.Bool("RUN_STUN") || set.Get("TCP_WRITE_TIMEOUT") != "1m30s" {
		t.Errorf("before: %q", set.Flags())
	}
	if changed.Number("STUN_PORT") != 6 || changed.Bool("RUN_STUN") || changed.Get("TCP_WRITE_TIMEOUT") != "1m30s" {
		t.Errorf("after: %q", changed.Flags())
	}
	if got := changed.Value("STUN_PORT").Source(); got != "environment (why)" {
		t.Errorf("it comes from %q", got)
	}
	if !slices.Contains(changed.Flags(), "-stun-port=6") {
		t.Errorf("derper does not get it: %q", changed.Flags())
	}
}
