package suite

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// flagCases are about the flags of the image's derper that nobody wrote a scenario for: those
// that it says it has, those that became a variable by rule, and those that it lacks.
func flagCases(r setting.Release) []Case {
	cases := []Case{{Name: "flags", Everywhere: true, run: func(ctx context.Context, b *bed) { caseFlags(ctx, b, r) }}}
	table := r.Table()
	group := func(name string, list []setting.Variable, run func(context.Context, *bed, *setting.Table, []setting.Variable)) {
		if len(list) == 0 {
			return
		}
		c := Case{Name: "variables/" + name, run: func(ctx context.Context, b *bed) { run(ctx, b, table, list) }}
		for _, v := range list {
			c.Rows = append(c.Rows, rowOf(v.Name))
		}
		cases = append(cases, c)
	}
	group("by-rule", slices.DeleteFunc(table.Variables(), func(v setting.Variable) bool { return !v.ByRule() }), caseByRule)
	group("off", table.Off(), caseOff)
	return cases
}

// caseFlags expects derper -h to say what the image's list of flags does: names, types,
// defaults and help.
func caseFlags(ctx context.Context, b *bed, r setting.Release) {
	c := b.start(ctx, container.Spec{Args: []string{"derper", "-h"}})
	must.Get(c.code(ctx)) // 0 or 2, depending on derper's Go
	said := usages(c.Logs())
	var errs []error
	for _, f := range r.Flags {
		got, want := said[f.Name], usage(f)
		if delete(said, f.Name); f.Computed {
			got, want = defaultText.ReplaceAllString(got, ""), defaultText.ReplaceAllString(want, "")
		}
		if f.Type == setting.KindValue && strings.HasPrefix(got, "-"+f.Name+"\n") {
			// What a value is called, derper says when it runs; of one that is like a bool, nothing.
			_, text, _ := strings.Cut(want, "\n")
			want = "-" + f.Name + "\n" + text
		}
		if got != want {
			errs = append(errs, fmt.Errorf("-%s: derper -h says %q, and %s makes it %q", f.Name, got, setting.File, want))
		}
	}
	for name := range said {
		errs = append(errs, fmt.Errorf("-%s is not in %s", name, setting.File))
	}
	b.note = fmt.Sprintf("%d flags of derper %s", len(r.Flags), r.Version)
	must.Do(errors.Join(errs...))
}

var (
	usageLine   = regexp.MustCompile(`(?m)^  -([^\s=]+)`)
	defaultText = regexp.MustCompile(` \(default (?s:.*)\)$`)
)

// usages are what package flag prints of each flag, by name.
func usages(said string) map[string]string {
	list := map[string]string{}
	at := usageLine.FindAllStringSubmatchIndex(said, -1)
	for i, m := range at {
		end := len(said)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		list[said[m[2]:m[3]]] = strings.TrimSpace(said[m[0]:end])
	}
	return list
}

// usage is what package flag prints of a flag like that.
func usage(f setting.Flag) string {
	var b strings.Builder
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(&b)
	// A default that is no value of the type shows as another one.
	switch f.Type {
	case setting.KindBool:
		set.Bool(f.Name, f.Default == "true", f.Help)
	case setting.KindInt, setting.KindInt64:
		n, _ := strconv.ParseInt(cmp.Or(f.Default, "0"), 10, 64)
		set.Int64(f.Name, n, f.Help)
	case setting.KindUint, setting.KindUint64:
		n, _ := strconv.ParseUint(cmp.Or(f.Default, "0"), 10, 64)
		set.Uint64(f.Name, n, f.Help)
	case setting.KindFloat64:
		n, _ := strconv.ParseFloat(cmp.Or(f.Default, "0"), 64)
		set.Float64(f.Name, n, f.Help)
	case setting.KindDuration:
		d, _ := time.ParseDuration(cmp.Or(f.Default, "0s"))
		set.Duration(f.Name, d, f.Help)
	case setting.KindString:
		set.String(f.Name, f.Default, f.Help)
	default:
		set.Func(f.Name, f.Help, func(string) error { return nil })
	}
	set.PrintDefaults()
	return strings.TrimSpace(b.String())
}

// caseByRule gives variables that no row of the table is about another value than the default:
// the entrypoint takes it, and derper takes the flag; and a value of another type is refused.
// What a flag does, nobody knows here, so no relay runs with it.
func caseByRule(ctx context.Context, b *bed, table *setting.Table, list []setting.Variable) {
	for _, v := range list {
		b.results[rowOf(v.Name)] = probe.Caught(func() {
			good, bad := valuesOf(v)
			set, problems := table.Read([]string{v.Name + "=" + good}, nil, "")
			if len(problems) > 0 {
				fail("%s=%s: %v", v.Name, good, problems[0])
			}
			c := b.start(ctx, container.Spec{Args: []string{"env"}, Env: []string{v.Name + "=" + good}})
			shown := v.Name + "=" + set.Value(v.Name).Shown()
			if code := must.Get(c.code(ctx)); code != 0 || !strings.Contains("\n"+c.Logs(), "\n"+shown+" ") {
				fail("%s=%s: env ends with %d, and does not say %q", v.Name, good, code, shown)
			}
			args := []string{"derper", "-" + v.Flag + "=" + set.Get(v.Name), "-version"}
			if c = b.start(ctx, container.Spec{Args: args}); must.Get(c.code(ctx)) != 0 && v.Type != setting.Any {
				fail("%q: derper refuses it: %s", args, c.Logs())
			}
			if bad == "" {
				return
			}
			c = b.start(ctx, container.Spec{Env: []string{v.Name + "=" + bad}})
			if code := must.Get(c.code(ctx)); code != 1 || !strings.Contains(c.Logs(), v.Name+"=") {
				fail("%s=%s: code %d, want 1 and what is wrong", v.Name, bad, code)
			}
		})
	}
}

// valuesOf are a value that a variable by rule takes, and one that it does not, "" for none.
func valuesOf(v setting.Variable) (good, bad string) {
	switch v.Type {
	case setting.Bool:
		return strconv.FormatBool(v.Default != "true"), "perhaps"
	case setting.Whole, setting.Unsigned, setting.Float:
		return "7", "seven"
	case setting.Length:
		return "7s", "7"
	}
	return "sample", ""
}

// caseOff sets what the release's derper lacks: the relay says so and does not start.
func caseOff(ctx context.Context, b *bed, table *setting.Table, list []setting.Variable) {
	var env []string
	for _, v := range list {
		env = append(env, v.Name+"=7")
	}
	c := b.start(ctx, container.Spec{Env: env})
	code := must.Get(c.code(ctx))
	for _, v := range list {
		b.results[rowOf(v.Name)] = probe.Caught(func() {
			if want := v.Name + ": derper " + table.Release() + " has no -" + v.Flag; code != 1 || !strings.Contains(c.Logs(), want) {
				fail("code %d, want 1 and %q", code, want)
			}
		})
	}
}
