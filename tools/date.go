package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// layouts are the conversions of date, as layouts of package time.
var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'j': "002", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'Z': "MST", 'z': "-0700", 'F': "2006-01-02", 'T': "15:04:05", 'X': "15:04:05", 'R': "15:04", 'r': "03:04:05 PM",
	'D': "01/02/06", 'x': "01/02/06", 'c': "Mon Jan _2 15:04:05 2006",
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January",
	'n': "\n", 't': "\t", '%': "%",
}

// precisions are what -I prints, see [layouts].
var precisions = map[string]string{
	"date": "%F", "hours": "%FT%H%:z", "minutes": "%FT%R%:z", "seconds": "%FT%T%:z", "ns": "%FT%T,%N%:z",
}

func date(args []string) error {
	flags := newFlags()
	utc := flags.BoolP("utc", "u", false, "in UTC")
	iso := flags.StringP("iso-8601", "I", "", "as in 2026-01-02T15:04:05+00:00, to the date, hours, minutes, seconds or ns")
	flags.Lookup("iso-8601").NoOptDefVal = "date"
	args = slices.Clone(args)
	for i, arg := range args {
		if precision, ok := strings.CutPrefix(arg, "-I"); ok && precision != "" { // pflag has no such flag
			args[i] = "--iso-8601=" + precision
		}
	}
	at := flags.StringP("date", "d", "", "this time, not now: @SECONDS since 1970, or as -Iseconds prints it")
	rest, err := parse(flags, args, "[-u] [-d TIME] [-I[PRECISION] | +FORMAT]", 0, 1)
	if err != nil {
		return err
	}
	now, format := time.Now(), "+%a %b %e %T %Z %Y"
	if *at != "" {
		if now, err = timeOf(*at); err != nil {
			return usageError{err}
		}
	}
	if *utc {
		now = now.UTC()
	}
	if len(rest) > 0 {
		format = rest[0]
	}
	if *iso != "" {
		if format = "+" + precisions[*iso]; format == "+" || len(rest) > 0 {
			return usageError{fmt.Errorf("-I%s: no such precision, or a format as well", *iso)}
		}
	}
	format, ok := strings.CutPrefix(format, "+")
	if !ok {
		return usageError{fmt.Errorf("a format begins with +, and the clock is not set: %q", rest[0])}
	}
	text, err := dateText(now, format)
	if err != nil {
		return usageError{err}
	}
	_, err = fmt.Println(text)
	return err
}

// timeOf reads a time: @SECONDS since 1970, or as -Iseconds prints it.
func timeOf(text string) (time.Time, error) {
	if number, ok := strings.CutPrefix(text, "@"); ok {
		if seconds, err := strconv.ParseInt(number, 10, 64); err == nil {
			return time.Unix(seconds, 0), nil
		}
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t.Local(), nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid time %q", text)
}

var conversion = regexp.MustCompile(`%(:z|-?[0-9]?.|$)`)

// dateText writes a time. What it does not know is an error: nobody is to take it for a date.
func dateText(now time.Time, format string) (text string, err error) {
	text = conversion.ReplaceAllStringFunc(format, func(word string) string {
		spec, bare := strings.CutPrefix(word[1:], "-") // without the zero in front
		last := word[len(word)-1]
		digits := strings.TrimSuffix(spec, string(last))
		converted := ""
		switch layout := layouts[last]; {
		case spec == ":z":
			return now.Format("-07:00")
		case last == 'N':
			n, err := strconv.Atoi(digits)
			if err != nil || n == 0 {
				n = 9
			}
			return fmt.Sprintf("%09d", now.Nanosecond())[:n]
		case digits != "":
		case last == 's':
			return strconv.FormatInt(now.Unix(), 10)
		case last == 'k':
			converted = fmt.Sprintf("%2d", now.Hour())
		case last == 'l':
			converted = fmt.Sprintf("%2d", (now.Hour()+11)%12+1)
		case last == 'u':
			return strconv.Itoa((int(now.Weekday())+6)%7 + 1)
		case last == 'w':
			return strconv.Itoa(int(now.Weekday()))
		case last == 'V' || last == 'G':
			year, week := now.ISOWeek()
			return fmt.Sprintf("%02d", map[bool]int{true: week, false: year}[last == 'V'])
		case layout != "":
			converted = now.Format(layout)
		}
		if converted == "" {
			err = fmt.Errorf("unknown conversion %q", word)
		}
		if trimmed := strings.TrimLeft(converted, "0 "); bare && trimmed != "" {
			return trimmed
		} else if bare && converted != "" {
			return converted[len(converted)-1:]
		}
		return converted
	})
	return text, err
}
