package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A sortKey are the fields that lines are sorted by.
type sortKey struct {
	from, to                int // the first is 1; to 0: to the line's end
	numeric, human, reverse bool
}

func sortLines(args []string) error {
	flags := newFlags()
	var all sortKey
	flags.BoolVarP(&all.numeric, "numeric-sort", "n", false, "by numbers")
	flags.BoolVarP(&all.human, "human-numeric-sort", "h", false, "by numbers such as 2K and 1.5G")
	flags.BoolVarP(&all.reverse, "reverse", "r", false, "the largest first")
	unique := flags.BoolP("unique", "u", false, "one line of those that are the same by the keys")
	specs := flags.StringArrayP("key", "k", nil, "by these fields: FROM[,TO], with n, h or r behind")
	separator := flags.StringP("field-separator", "t", "", "between fields")
	to := flags.StringP("output", "o", "", "a file for the lines")
	names, err := parse(flags, args, "[-hnru] [-k FIELD[,FIELD][hnr]]… [-t SEPARATOR] [-o FILE] [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	var keys []sortKey
	for _, spec := range *specs {
		parts := keySpec.FindStringSubmatch(spec)
		if parts == nil {
			return usageError{fmt.Errorf("invalid key %q", spec)}
		}
		key := all
		if letters := parts[2] + parts[4]; letters != "" {
			key = sortKey{numeric: strings.Contains(letters, "n"), human: strings.Contains(letters, "h"), reverse: strings.Contains(letters, "r")}
		}
		key.from, _ = strconv.Atoi(parts[1])
		key.to, _ = strconv.Atoi(parts[3])
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		keys = append(keys, all)
	}
	var text []string
	err = each(names, func(_ string, in *os.File) error {
		return lines(in, func(line []byte) error { text = append(text, string(line)); return nil })
	})
	byKeys := func(a, b string) int {
		for _, key := range keys {
			if by := key.compare(key.of(a, *separator), key.of(b, *separator)); by != 0 {
				return by
			}
		}
		return 0
	}
	slices.SortStableFunc(text, func(a, b string) int {
		by := byKeys(a, b)
		if by == 0 && !*unique {
			if by = strings.Compare(a, b); all.reverse {
				by = -by
			}
		}
		return by
	})
	if *unique {
		text = slices.CompactFunc(text, func(a, b string) bool { return byKeys(a, b) == 0 })
	}
	file := os.Stdout
	if *to != "" { // only now: it may be one of the files that were read
		f, err := os.Create(*to)
		if err != nil {
			return err
		}
		defer f.Close()
		file = f
	}
	out := bufio.NewWriter(file)
	for _, line := range text {
		fmt.Fprintln(out, line)
	}
	return cmp.Or(out.Flush(), err)
}

var keySpec = regexp.MustCompile(`^([1-9][0-9]*)([hnr]*)(?:,([1-9][0-9]*)([hnr]*))?$`)

// of is what a line is sorted by. A field has the blanks before it, but not the separator.
func (k sortKey) of(line, separator string) string {
	start, at := 0, 0
	for n := 1; at <= len(line); n++ {
		if n == k.from {
			start = at
		}
		end := len(line)
		if separator != "" {
			if i := strings.Index(line[at:], separator); i >= 0 {
				end = at + i
			}
		} else {
			blanks := len(line[at:]) - len(strings.TrimLeft(line[at:], " \t"))
			if i := strings.IndexAny(line[at+blanks:], " \t"); i >= 0 {
				end = at + blanks + i
			}
		}
		if k.to > 0 && n >= k.to {
			return line[min(start, end):end]
		}
		if at = end + len(separator); end == len(line) {
			if k.from > n {
				return ""
			}
			break
		}
	}
	return line[start:]
}

// compare compares what two lines are sorted by.
func (k sortKey) compare(a, b string) (by int) {
	switch {
	case k.human:
		by = cmp.Compare(humanNumber(a), humanNumber(b))
	case k.numeric:
		by = cmp.Compare(number(a), number(b))
	default:
		by = strings.Compare(a, b)
	}
	if k.reverse {
		by = -by
	}
	return by
}

var leading = regexp.MustCompile(`^\s*[-+]?[0-9]*\.?[0-9]*`)

// number is the number that a text begins with, 0 if there is none.
func number(text string) float64 {
	n, _ := strconv.ParseFloat(strings.TrimSpace(leading.FindString(text)), 64)
	return n
}

// humanNumber is the number that a text begins with, with a unit such as K behind it.
func humanNumber(text string) float64 {
	n, rest := number(text), text[len(leading.FindString(text)):]
	if rest != "" {
		n *= math.Pow(1024, float64(1+strings.IndexByte("KMGTPE", strings.ToUpper(rest[:1])[0])))
	}
	return n
}

var ranges = regexp.MustCompile(`^([0-9]*)(-?)([0-9]*)$`)

// cut prints some fields, or characters, of each line.
func cut(args []string) error {
	flags := newFlags()
	fields := flags.StringP("fields", "f", "", "these fields: a list of N, N-M, N- and -M")
	characters := flags.StringP("characters", "c", "", "these characters")
	separator := flags.StringP("delimiter", "d", "\t", "between fields")
	only := flags.BoolP("only-delimited", "s", false, "no lines without fields")
	names, err := parse(flags, args, "-f LIST [-d SEPARATOR] [-s] | -c LIST [FILE]…", 0, -1)
	if err != nil {
		return err
	}
	var list [][2]int
	for item := range strings.SplitSeq(*fields+*characters, ",") {
		parts := ranges.FindStringSubmatch(item)
		if parts == nil || parts[1]+parts[3] == "" || *fields != "" && *characters != "" || *separator == "" {
			return usageError{fmt.Errorf("invalid list %q of -f or -c, or no separator", item)}
		}
		from, _ := strconv.Atoi(cmp.Or(parts[1], "1"))
		to, _ := strconv.Atoi(parts[3])
		switch {
		case from == 0:
			return usageError{errors.New("the first is 1, not 0")}
		case parts[2] == "":
			to = from
		case parts[3] == "":
			to = math.MaxInt
		}
		list = append(list, [2]int{from, to})
	}
	out := bufio.NewWriter(os.Stdout)
	err = each(names, func(_ string, in *os.File) error {
		return lines(in, func(line []byte) error {
			between := *separator
			if *characters != "" {
				between = ""
			}
			words := strings.Split(string(line), between)
			if between != "" && len(words) == 1 {
				if !*only {
					fmt.Fprintf(out, "%s\n", line)
				}
				return nil
			}
			var shown []string
			for i, word := range words {
				if slices.ContainsFunc(list, func(r [2]int) bool { return r[0] <= i+1 && i+1 <= r[1] }) {
					shown = append(shown, word)
				}
			}
			_, err := fmt.Fprintln(out, strings.Join(shown, between))
			return err
		})
	})
	return cmp.Or(out.Flush(), err)
}
