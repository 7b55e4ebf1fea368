package setting

import (
	"slices"
	"strings"
	"testing"
)

// flagsOf are the flags of all rows, but for some, and some more.
func flagsOf(without []string, more ...Flag) Release {
	r := KnownRelease()
	r.Version = "1.2.3"
	r.Flags = slices.DeleteFunc(r.Flags, func(f Flag) bool {
		return slices.Contains(without, f.Name) || slices.ContainsFunc(more, func(o Flag) bool { return o.Name == f.Name })
	})
	r.Flags = append(r.Flags, more...)
	return r
}

// The mistake it guards: a flag that upstream adds and nobody can set, or whose value derper
// refuses.
func TestNewFlags(t *testing.T) {
	table := flagsOf(nil,
		Flag{Name: "new-bool", Type: KindBool, Default: "true", Help: "says `yes` or\nno"},
		Flag{Name: "new-int", Type: KindInt, Default: "5"},
		Flag{Name: "new-int64", Type: KindInt64},
		Flag{Name: "new-uint", Type: KindUint},
		Flag{Name: "new-uint64", Type: KindUint64},
		Flag{Name: "new-float", Type: KindFloat64},
		Flag{Name: "new-string", Type: KindString},
		Flag{Name: "new-duration", Type: KindDuration, Default: "5s"},
		Flag{Name: "new.value", Type: KindValue, Computed: true},
		Flag{Name: "new-token", Type: KindString, Default: "x"},
		Flag{Name: "path", Type: KindString},
		Flag{Name: "domain", Type: KindString},
		Flag{Name: "ts-debug", Type: KindBool},
		Flag{Name: "2fa", Type: KindBool},
		Flag{Name: "new_int", Type: KindInt},
		Flag{Name: "new.int", Type: KindInt},
		Flag{Name: "é", Type: KindInt},
		Flag{Name: "https-proxy", Type: KindString},
		Flag{Name: "a-token-file", Type: KindString},
		Flag{Name: "the-passphrases-of-it", Type: KindString},
		Flag{Name: "mark", Type: KindString, Default: "a|`b`\nc"},
	).Table()
	for _, test := range []struct{ name, text, flag, problem string }{
		{"NEW_BOOL", "0", "-new-bool=false", ""},
		{"NEW_BOOL", "no", "", "use true or false"},
		{"NEW_INT", "0x10", "-new-int=16", ""},
		{"NEW_INT", "x", "", "use a whole number"},
		{"NEW_INT64", "-1", "-new-int64=-1", ""},
		{"NEW_INT64", "9223372036854775808", "", "use a whole number"},
		{"NEW_UINT", "7", "-new-uint=7", ""},
		{"NEW_UINT64", "18446744073709551615", "-new-uint64=18446744073709551615", ""},
		{"NEW_UINT64", "-1", "", "0 or more"},
		{"NEW_FLOAT", "-1.5e3", "-new-float=-1.5e3", ""},
		{"NEW_FLOAT", "much", "", "use a number"},
		{"NEW_STRING", "/a b", "-new-string=/a b", ""},
		{"NEW_STRING", "", "", ""},
		{"NEW_DURATION", "-90s", "-new-duration=-1m30s", ""},
		{"NEW_DURATION", "90", "", "with a unit"},
		{"NEW_VALUE", "any", "-new.value=any", ""},
		{"NEW_TOKEN", "t", "-new-token=t", ""},
		{"NEW_TOKEN", "/run/secrets/t", "", "set NEW_TOKEN_FILE to the path"},
		{"DERPER_PATH", "a", "-path=a", ""},
		{"DERPER_HTTPS_PROXY", "a", "-https-proxy=a", ""},
		{"DERPER__", "1", "-é=1", ""},
		{"A_TOKEN_FILE", "/run/secrets/t", "-a-token-file=/run/secrets/t", ""},
		{"THE_PASSPHRASES_OF_IT", "/run/secrets/t", "", "set THE_PASSPHRASES_OF_IT_FILE to the path"},
		{"DERPER_DOMAIN", "a", "-domain=a", ""},
		{"DERPER_TS_DEBUG", "1", "-ts-debug=true", ""},
		{"DERPER_2FA", "1", "-2fa=true", ""},
		{"DERPER_NEW_INT", "1", "-new_int=1", ""},
		{"DERPER_NEW_INT_2", "2", "-new.int=2", ""},
	} {
		set, problems := table.Read([]string{test.name + "=" + test.text}, nil, "")
		var given []string
		for _, f := range set.Flags() {
			if v, _ := table.ByFlag(strings.SplitN(f[1:], "=", 2)[0]); v.rule {
				given = append(given, f)
			}
		}
		switch {
		case test.problem != "":
			if len(problems) != 1 || problems[0].Name != test.name || !strings.Contains(problems[0].What, test.problem) {
				t.Errorf("%s=%s: %v, want %q", test.name, test.text, problems, test.problem)
			}
		case len(problems) > 0 || strings.Join(given, " ") != test.flag:
			t.Errorf("%s=%s: derper gets %q, want %q; %v", test.name, test.text, given, test.flag, problems)
		}
	}
	if set, problems := table.Read(nil, []string{"-new-int=3", "-new-bool"}, ""); len(problems) > 0 || set.Get("NEW_INT") != "3" || !set.Bool("NEW_BOOL") {
		t.Errorf("arguments: %v", problems)
	}
	if page := table.Markdown(); !strings.Contains(page, "| `MARK` | `a\\|'b' c` | `-mark` |") {
		t.Errorf("no cell of one line for what has marks:\n%s", page)
	}
	usage := table.Usage()
	for _, want := range []string{"  NEW_BOOL  (-new-bool)  default true\n        says yes or no\n", "  NEW_TOKEN, NEW_TOKEN_FILE  (-new-token)\n", "NEW_STRING  (-new-string)\n        derper's -new-string"} {
		if !strings.Contains(usage, want) {
			t.Errorf("--help has no %q", want)
		}
	}
	if set, _ := table.Read([]string{"NEW_TOKEN=t"}, nil, ""); set.Value("NEW_TOKEN").Shown() != "(secret)" || len(table.Environ([]string{"NEW_TOKEN=t", "A=b"})) != 1 {
		t.Error("what is called a token shows")
	}
	if found := table.Misspelt([]string{"NEW_STRNG=x"}); len(found) != 1 || !strings.Contains(found[0].What, "NEW_STRING") {
		t.Errorf("misspelt: %v", found)
	}
}

// The mistake it guards: a setting that is without effect, because derper no longer has it,
// or not yet; and a container that does not start because of a default that the seed sets.
func TestOff(t *testing.T) {
	table := flagsOf([]string{"dev", "mesh-with", "hostname", "acme-eab-key", "ace"}).Table()
	set, problems := table.Read([]string{"DEV=false", "HOSTNAME=3f2a", "MESH_WITH="}, nil, "3f2a")
	if len(problems) > 0 || set.Bool("DEV") || set.Get("HOSTNAME") != "127.0.0.1" {
		t.Errorf("what changes nothing: %v", problems)
	}
	for _, f := range set.Flags() {
		if strings.HasPrefix(f, "-dev") || strings.HasPrefix(f, "-hostname") {
			t.Errorf("derper gets %s", f)
		}
	}
	for env, name := range map[string]string{
		"DEV=true": "DEV", "MESH_WITH=a": "MESH_WITH", "DERP_HOSTNAME=a.b": "DERP_HOSTNAME", "ACME_EAB_KEY_FILE=/x": "ACME_EAB_KEY_FILE", "ACE=1": "ACE",
	} {
		_, problems := table.Read([]string{env}, nil, "")
		if len(problems) != 1 || problems[0].Name != name || !strings.Contains(problems[0].What, "derper 1.2.3 has no -") {
			t.Errorf("%s: %v", env, problems)
		}
		if found := table.Misspelt([]string{env}); len(found) > 0 {
			t.Errorf("%s is said to be misspelt, too: %v", env, found)
		}
	}
	if _, problems := table.Read(nil, []string{"-ace"}, ""); len(problems) != 1 || !strings.Contains(problems[0].Error(), "-ace: derper 1.2.3 has no -ace") {
		t.Errorf("an argument: %v", problems)
	}
	if strings.Contains(table.Usage(), "ACE") || len(table.Environ([]string{"ACME_EAB_KEY=x"})) > 0 {
		t.Error("--help has what the release lacks, or a secret is passed on")
	}
}

// The mistake it guards: a flag whose kind upstream changes, and a default that derper then
// refuses.
func TestOtherKind(t *testing.T) {
	table := flagsOf(nil, Flag{Name: "stun-port", Type: KindString}, Flag{Name: "tcp-write-timeout", Type: KindInt}, Flag{Name: "dev", Type: KindInt64}, Flag{Name: "ace", Type: KindValue}).Table()
	set, problems := table.Read(nil, nil, "")
	flags := set.Flags()
	if len(problems) > 0 || !slices.Contains(flags, "-stun-port=3478") || slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "-tcp-write-timeout") || strings.HasPrefix(f, "-dev") }) {
		t.Errorf("%q, %v", flags, problems)
	}
	set, problems = table.Read([]string{"STUN_PORT=udp/1", "TCP_WRITE_TIMEOUT=5", "DEV=2"}, nil, "")
	for _, want := range []string{"-stun-port=udp/1", "-tcp-write-timeout=5", "-dev=2"} {
		if !slices.Contains(set.Flags(), want) || len(problems) > 0 {
			t.Errorf("derper does not get %s: %q, %v", want, set.Flags(), problems)
		}
	}
	if _, problems := table.Read([]string{"TCP_WRITE_TIMEOUT=5s"}, nil, ""); len(problems) != 1 {
		t.Errorf("what derper refuses: %v", problems)
	}
}

// The mistake it guards: a default that upstream changed for good reason, and that the image
// goes on undoing; or one that is the image's own, and changes with a release.
func TestDefaults(t *testing.T) {
	table := flagsOf(nil, Flag{Name: "tcp-user-timeout", Type: KindDuration, Default: "20s"}, Flag{Name: "certmode", Type: KindString, Default: "gcp"},
		Flag{Name: "secrets-path-prefix", Type: KindString, Computed: true}, Flag{Name: "tcp-write-timeout", Type: KindDuration, Default: "-1s"},
		Flag{Name: "home", Type: KindString, Default: "blank"}).Table()
	set, problems := table.Read(nil, nil, "")
	if len(problems) > 0 {
		t.Error(problems)
	}
	for name, want := range map[string]string{
		"TCP_USER_TIMEOUT": "20s", "CERT_MODE": "manual", "SECRETS_PREFIX": "prod/derp", "FLAGHOME": "blank",
		"TCP_WRITE_TIMEOUT": "", // no value of the row's: derper has it
	} {
		if v, _ := table.Lookup(name); v.Default != want || set.Get(name) != want || set.Value(name).Origin != FromDefault {
			t.Errorf("%s is %q, its default %q, want %q", name, set.Get(name), v.Default, want)
		}
	}
}
