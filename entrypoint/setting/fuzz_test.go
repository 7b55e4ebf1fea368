package setting

import (
	"slices"
	"strings"
	"testing"
)

// FuzzRead: whatever the environment and the arguments are, Read does not
// panic. Each problem names its variable, without the value of a secret; and
// without a problem derper accepts the flags and gets all of them.
func FuzzRead(f *testing.F) {
	f.Add("ADDR=:443\x00HTTP_PORT=80", "-a\x00:8443\x00--stun")
	f.Add("HOSTNAME=[::1]\x00MESH_WITH=a/b/c,\x00=\x00ADDR", "-=\x00---x\x00-\x00--")
	f.Add("ACCEPT_CONNECTION_LIMIT=0x1p-2\x00TCP_USER_TIMEOUT=1ns\x00ACCEPT_CONNECTION_BURST=1_000", "-dev=\x00-c")
	f.Add("FLAGHOME=http://%zz\x00VERIFY_CLIENT_URL=https://a:b@c\x00DEV=\"1\"", "-home\x00\xff")
	f.Add("MESH_PSK=/run/secret\x00PEER_RELAY_ENDPOINTS=203.0.113.7:1,[2001:db8::7]:2\x00ACME_EAB_KEY=AA\x00CERT_MODE=gcp", "")
	variables := map[string]Variable{}
	for _, v := range Known().Variables() {
		for _, name := range v.names() {
			variables[name] = v
		}
	}
	f.Fuzz(func(t *testing.T, env, args string) {
		if strings.Contains(env, "_FILE=") {
			return // would read files of this machine
		}
		environ := strings.Split(env, "\x00")
		var arguments []string
		if args != "" {
			arguments = strings.Split(args, "\x00")
		}
		set, problems := Known().Read(environ, arguments, "")
		for _, p := range problems {
			v, known := variables[p.Name]
			if p.What == "" || !known && !slices.ContainsFunc(arguments, func(arg string) bool { return strings.Contains(arg, strings.TrimLeft(p.Name, "-")) }) {
				t.Errorf("which variable? %#v", p)
			}
			if known && v.Secret && p.Text != "" {
				t.Errorf("a secret: %v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		fs := derperFlagSet()
		if err := fs.Parse(set.Flags()); err != nil {
			t.Errorf("derper refuses %q: %v", set.Flags(), err)
		}
		if fs.NArg() > 0 {
			t.Errorf("derper takes %q for no flags", fs.Args())
		}
		again, problems := Known().Read(nil, set.Flags(), "")
		if len(problems) > 0 || !slices.Equal(again.Flags(), set.Flags()) {
			t.Errorf("%q is read again as %q, %v", set.Flags(), again.Flags(), problems)
		}
	})
}

// FuzzMisspelt guards against a crash on the names of others' variables, and a hint at
// a variable that is not there.
//
// It has less than 10,000 executions a second: a name is compared letter by letter
// with each of the table, which takes 0.2 ms.
func FuzzMisspelt(f *testing.F) {
	for _, name := range []string{"HOSTNAME", "HOST_NAME", "DERP_DOMAIN", "VERIFY_CLIENT", "ts_authkey", "MESH_PSK_FILE", "\xff"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, p := range Known().Misspelt([]string{name + "=x"}) {
			_, near, _ := strings.Cut(p.What, "did you mean ")
			near = strings.TrimSuffix(strings.TrimSuffix(near, "?"), "_FILE")
			if _, ok := Known().Lookup(near); !ok && near != "DERP_HOSTNAME" {
				t.Errorf("%q: %v", name, p)
			}
		}
	})
}
