package setting

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The mistake it guards: a default that is not the seed's, which would change
// what a container does for somebody who only changes the image's name.
func TestSeedVariables(t *testing.T) {
	// As `docker inspect camllia/derper` shows them.
	seed := []string{
		"DEV=false", "VERSION_FLAG=false", "ADDR=:443", "HTTP_PORT=80", "STUN_PORT=3478", "CONFIG_PATH=",
		"CERT_MODE=manual", "CERT_DIR=derper-certs", "HOSTNAME=127.0.0.1", "RUN_STUN=true", "RUN_DERP=true",
		"FLAGHOME=", "MESH_PSKFILE=", "MESH_WITH=", "SECRETS_URL=", "SECRETS_PREFIX=prod/derp",
		"SECRETS_CACHEDIR=derper-secrets", "BOOTSTRAP_DNS=", "UNPUBLISHED_DNS=", "VERIFY_CLIENTS=true",
		"VERIFY_CLIENT_URL=", "VERIFY_FAIL_OPEN=true", "SOCKET=", "ACCEPT_CONNECTION_LIMIT=+Inf",
		"ACCEPT_CONNECTION_BURST=9223372036854775807", "TCP_KEEPALIVE_TIME=10m0s", "TCP_USER_TIMEOUT=15s",
		"TCP_WRITE_TIMEOUT=2s",
	}
	var got []string
	for _, v := range Known().Variables() {
		if v.Seed {
			got = append(got, v.Name+"="+v.Default)
		}
	}
	slices.Sort(seed)
	slices.Sort(got)
	if !slices.Equal(seed, got) {
		t.Errorf("got  %q\nwant %q", got, seed)
	}
	// What the seed's environment sets means the same as setting nothing, as
	// in a container that keeps that environment and has our image.
	with, problems := Known().Read(seed, nil, "")
	without, _ := Known().Read(nil, nil, "")
	if !slices.Equal(with.Flags(), without.Flags()) || len(problems) > 0 {
		t.Errorf("the seed's environment gives %q, none gives %q (%v)", with.Flags(), without.Flags(), problems)
	}
}

const burst = "9223372036854775807"

// values has, for each type, texts with what derper gets ("" for nothing), and
// texts with a part of the message.
var values = map[Type]struct{ valid, invalid map[string]string }{
	Text: {map[string]string{"a b": "a b", " x\r": "x"}, nil},
	Bool: {
		map[string]string{"true": "true", "1": "true", "T": "true", "FALSE": "false", "0": "false"},
		map[string]string{"yes": "use true or false", `"true"`: "remove the quotes", "2": "use true or false"},
	},
	Port: {
		map[string]string{"1": "1", "065": "65", "65535": "65535", "+5": "5"},
		map[string]string{"0": "1 to 65535", "65536": "1 to 65535", "-1": "1 to 65535", "x": "1 to 65535", "3478/udp": "1 to 65535", "0x10": "1 to 65535"},
	},
	HTTPPort: {
		map[string]string{"80": "80", "-1": "-1"},
		map[string]string{"0": "or -1 for no HTTP", "-2": "or -1", "tcp://10.0.0.1:80": "enableServiceLinks"},
	},
	Count: {
		map[string]string{"0": "0", "5": "5"},
		map[string]string{"-1": "whole number", "1.5": "whole number", "9223372036854775808": "whole number"},
	},
	Rate: {
		map[string]string{"+Inf": "+Inf", "inf": "inf", "1.5": "1.5", "1e3": "1e3"},
		map[string]string{"-1": "0 or more", "NaN": "0 or more", "fast": "0 or more", "-Inf": "0 or more"},
	},
	Span: {
		map[string]string{"90s": "1m30s", "0": "0s", "1h": "1h0m0s"},
		map[string]string{"90": "with a unit", "-5s": "0 or more", "1d": "with a unit", "2000000h": ""},
	},
	Address: {
		map[string]string{":443": ":443", "10.0.0.1:8443": "10.0.0.1:8443", "[::1]:443": "[::1]:443", "[fe80::1%eth0]:1": "[fe80::1%eth0]:1", ":https": ":443", "localhost:1": "127.0.0.1:1"},
		map[string]string{"443": "use :port", ":0": "use :port", "::1:443": "use :port", ":99999": "use :port", "example.com:443": "use :port"},
	},
	Host: {
		map[string]string{"derp.example.com": "derp.example.com", "10.0.0.1": "10.0.0.1", "2001:db8::1": "2001:db8::1", "a_b": "a_b"},
		map[string]string{"https://x": "no scheme", "x:443": "no scheme, port", "*.example.com": "wildcard", "a..b": "a DNS name", "x.": "dot at the end", "[::1]": "without brackets", "10.0.0.1/24": "plain IP", "300.1.1.1": "plain IP", "-a.b": "a DNS name"},
	},
	HostList: {
		map[string]string{"a.com": "a.com", "a.com, b.com": "a.com,b.com"},
		map[string]string{"a.com,,b.com": "is none", "a.com/b.com": "is none", "a b": "is none"},
	},
	MeshList: {
		map[string]string{"a.com": "a.com", "a.com/10.0.0.1, b.com:8443": "a.com/10.0.0.1,b.com:8443"},
		map[string]string{"a/b/c": "is none", "a.com,": "is none", "https://a.com": "is none"},
	},
	URL: {
		map[string]string{"https://a.com/x?y": "https://a.com/x?y", "http://10.0.0.1:80": "http://10.0.0.1:80"},
		map[string]string{"a.com": "use a URL", "ftp://a.com": "use a URL", "https://": "use a URL", "http:a": "use a URL"},
	},
	HomePage: {
		map[string]string{"blank": "blank", "https://a.com": "https://a.com"},
		map[string]string{"page": "use blank or a URL", "HTTP://a.com": "use blank or a URL"},
	},
	CertMode: {
		map[string]string{"manual": "manual", "letsencrypt": "letsencrypt", "gcp": "gcp"},
		map[string]string{"Manual": "use manual", "acme": "use manual"},
	},
	Path: {map[string]string{"a/b": "a/b", "/x y": "/x y"}, map[string]string{"'a'": "remove the quotes"}},
	Hex64: {
		map[string]string{strings.Repeat("0A", 32): strings.Repeat("0A", 32)},
		map[string]string{strings.Repeat("0", 63): "64 hexadecimal", strings.Repeat("x", 64): "64 hexadecimal"},
	},
	Endpoints: {
		map[string]string{"203.0.113.7:40000": "203.0.113.7:40000", "203.0.113.7:1, [2001:db8::7]:2": "203.0.113.7:1,[2001:db8::7]:2"},
		map[string]string{"203.0.113.7": "is none", "derp.example.com:1": "is none", "0.0.0.0:1": "is none", "127.0.0.1:1": "is none", "203.0.113.7:0": "is none", "[fe80::1%eth0]:1": "is none"},
	},
	NameList: {
		map[string]string{"a": "a", " magicsock, x y ": "magicsock,x y"},
		map[string]string{"a,,b": "one of them is empty", "a,": "one of them is empty"},
	},
	Base64: {
		map[string]string{"c2VjcmV0": "c2VjcmV0", "_-8": "_-8", "+/8=": "+/8="},
		map[string]string{"no base64!": "use base64"},
	},
}

// The mistake it guards: a value that the entrypoint lets through and derper
// refuses, or one that is lost on its way to derper.
func TestValues(t *testing.T) {
	for _, v := range Known().Variables() {
		cases, ok := values[v.Type]
		if !ok {
			t.Fatalf("no values for the type of %s", v.Name)
		}
		for text, want := range cases.valid {
			t.Run(v.Name+"/valid/"+text, func(t *testing.T) {
				set, problems := Known().Read([]string{v.Name + "=" + text}, nil, "")
				if len(problems) > 0 {
					t.Fatalf("is refused: %v", problems)
				}
				if set.Get(v.Name) != want || set.Value(v.Name).Origin != FromEnvironment {
					t.Fatalf("is %q from %s, want %q", set.Get(v.Name), set.Value(v.Name).Origin, want)
				}
				checkFlag(t, set, v, want)
				if v.Flag == "" {
					return
				}
				set, problems = Known().Read([]string{v.Name + "=" + v.Default}, []string{"--" + v.Flag + "=" + text}, "")
				if len(problems) > 0 || set.Get(v.Name) != want || set.Value(v.Name).Origin != FromArgument {
					t.Fatalf("as argument: %v, %q from %s", problems, set.Get(v.Name), set.Value(v.Name).Origin)
				}
			})
		}
		for text, want := range cases.invalid {
			t.Run(v.Name+"/invalid/"+text, func(t *testing.T) {
				if want == "" { // too long for two of the durations only
					if v.Flag == "tcp-write-timeout" {
						return
					}
					want = "use at most"
				}
				set, problems := Known().Read([]string{v.Name + "=" + text}, nil, "")
				if len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
					t.Fatalf("got %v, want one problem with %q", problems, want)
				}
				message := problems[0].Error()
				if !strings.HasPrefix(message, v.Name) || !v.Secret && !strings.Contains(message, fmt.Sprintf("%q", text)) && v.Type != URL && v.Type != HomePage {
					t.Errorf("the message names not both variable and value: %s", message)
				}
				if v.Secret && strings.Contains(message, text) {
					t.Errorf("the message shows a secret: %s", message)
				}
				if !set.Value(v.Name).Bad {
					t.Error("is not marked as bad")
				}
			})
		}
		for _, text := range []string{"", "  "} {
			set, problems := Known().Read([]string{v.Name + "=" + text}, nil, "")
			want := v.Default
			if want == burst && maxInt < 1<<62 {
				want = "" // does not fit an int here, and means no limit
			}
			if len(problems) > 0 || set.Get(v.Name) != want || set.Value(v.Name).Origin != FromDefault {
				t.Errorf("%s=%q: %v, %q, want the default %q", v.Name, text, problems, set.Get(v.Name), want)
			}
			checkFlag(t, set, v, want)
		}
	}
}

func checkFlag(t *testing.T, set Set, v Variable, want string) {
	t.Helper()
	if v.Flag == "" {
		for _, f := range set.Flags() {
			if want != "" && len(want) > 4 && strings.Contains(f, want) && v.Secret {
				t.Errorf("the value of %s is in %s", v.Name, f)
			}
		}
		return
	}
	if has := slices.Contains(set.Flags(), "-"+v.Flag+"="+want); has != (want != "") {
		t.Errorf("flags are %q; want -%s=%q", set.Flags(), v.Flag, want)
	}
}

// The mistake it guards: a secret file that is used although it is not what
// was meant, and a message that prints it.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", "  tskey-1\n")
	for _, v := range Known().Variables() {
		_, problems := Known().Read([]string{v.FileName() + "=" + good}, nil, "")
		if !v.Secret && len(problems) > 0 {
			t.Errorf("%s is no variable, but: %v", v.FileName(), problems)
		}
	}
	set, problems := Known().Read([]string{"TS_AUTHKEY_FILE=" + good}, nil, "")
	if len(problems) > 0 || set.Get("TS_AUTHKEY") != "tskey-1" || set.Value("TS_AUTHKEY").Shown() != "(secret)" {
		t.Errorf("%v, %q, shown as %q", problems, set.Get("TS_AUTHKEY"), set.Value("TS_AUTHKEY").Shown())
	}
	for env, want := range map[string]string{
		"TS_AUTHKEY=a|TS_AUTHKEY_FILE=" + good:                          "TS_AUTHKEY is set too",
		"TS_AUTHKEY_FILE=" + filepath.Join(dir, "none"):                 "no such file",
		"TS_AUTHKEY_FILE=" + dir:                                        "must be a file",
		"TS_AUTHKEY_FILE=" + write("empty", " \n"):                      "is empty",
		"TS_AUTHKEY_FILE=" + write("lines", "a\nb"):                     "more than one line",
		"TS_AUTHKEY_FILE=" + write("large", strings.Repeat("a", 1<<17)): "larger than 64 KiB",
		"MESH_PSK_FILE=" + good:                                         "MESH_PSK_FILE=\"" + good + "\": use 64 hexadecimal digits",
	} {
		_, problems := Known().Read(strings.Split(env, "|"), nil, "")
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
			t.Errorf("%s: got %v, want one problem with %q", env, problems, want)
		}
	}
	kept := Known().Environ([]string{"TS_AUTHKEY=x", "MESH_PSK=x", "ACME_EAB_KEY=x", "TS_AUTHKEY_FILE=/f", "DERP_DEBUG_LOGS=true"})
	if want := []string{"TS_AUTHKEY_FILE=/f", "DERP_DEBUG_LOGS=true"}; !slices.Equal(kept, want) {
		t.Errorf("derper's environment is %q, want %q", kept, want)
	}
}

func TestMisspelt(t *testing.T) {
	for name, want := range map[string]string{
		"VERIFY_CLIENT": "VERIFY_CLIENTS", "CERTMODE": "CERT_MODE", "DERP_ADDR": "ADDR", "HOSTNAM": "HOSTNAME",
		"TS_AUTH_KEY": "TS_AUTHKEY", "TS_AUTHKEY_FIEL": "TS_AUTHKEY_FILE", "verify_clients": "VERIFY_CLIENTS",
		"MESH_PSK_FIL": "MESH_PSK_FILE", "MESH_WIHT": "MESH_WITH", "STUN": "", "ACCEPT_CONNECTION_BRUST": "ACCEPT_CONNECTION_BURST",
		"DERP_DOMAIN": "HOSTNAME", "DOMAIN_NAME": "HOSTNAME", "DERP_HOSTNAM": "DERP_HOSTNAME", "DERP_CERT_MODE": "CERT_MODE", "DERP_CERT_DIR": "CERT_DIR",
		"DERP_STUN": "RUN_STUN", "DERP_STUN_PORT": "STUN_PORT", "DERP_HTTP_PORT": "HTTP_PORT", "DERP_VERIFY_CLIENTS": "VERIFY_CLIENTS",
		"DERP_VERIFY_CLIENT_URL": "VERIFY_CLIENT_URL", "TAILSCALE_AUTHKEY": "TS_AUTHKEY", "TAILSCALE_AUTH_KEY": "TS_AUTHKEY", "DERP_HOSTNAME": "",
		"HTTP_PROT": "HTTP_PORT", "CERTDIR": "CERT_DIR", "TAILSCALE": "TAILSCALED",
		// Other people's.
		"PATH": "", "HOME": "", "HOST": "", "DERP_DEBUG_LOGS": "", "TS_DEBUG_TRUSTED_CIDRS": "", "HTTP_PROXY": "",
		"HTTPS_PROXY": "", "GODEBUG": "", "KUBERNETES_PORT": "", "TZ": "", "LANG": "", "DEBUG": "", "SSL_CERT_DIR": "",
		"MESH_PSK_FILE": "", "ADDR": "", "LC_ALL": "", "TERM": "", "TS_NO_LOGS_NO_SUPPORT": "", "": "", "A": "",
	} {
		got := ""
		if found := Known().Misspelt([]string{name + "=x"}); len(found) > 0 {
			got = strings.TrimSuffix(strings.TrimPrefix(found[0].What, "has no effect; did you mean "), "?")
		}
		if got != want {
			t.Errorf("%s: suggests %q, want %q", name, got, want)
		}
	}
}

// TestREADME keeps the rows of the README equal to those of the table.
func TestREADME(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "<!-- variables:begin -->\n")
	rows, _, ok2 := strings.Cut(rest, "<!-- variables:end -->")
	if !ok || !ok2 || strings.Count(rows, "\n") < 10 {
		t.Fatal("README.md has no table of variables")
	}
	for row := range strings.Lines(rows) {
		if !strings.Contains(Known().Markdown(), row) {
			t.Errorf("the table has another row than README.md:\n%s", row)
		}
	}
}

// derperFlagSet parses arguments as derper does.
func derperFlagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("derper", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for _, v := range Known().Variables() {
		if v.Flag == "" {
			continue
		}
		switch v.Type {
		case Bool:
			fs.Bool(v.Flag, false, "")
		case Port, HTTPPort, Count:
			fs.Int(v.Flag, 0, "")
		case Rate:
			fs.Float64(v.Flag, 0, "")
		case Span:
			fs.Duration(v.Flag, 0, "")
		default:
			fs.String(v.Flag, "", "")
		}
	}
	return fs
}
