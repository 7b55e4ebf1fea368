package setting

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxInt is the largest value of derper's int flags on this platform.
const maxInt = int64(^uint(0) >> 1)

// Longest spans that Linux takes: TCP_USER_TIMEOUT is an int of milliseconds,
// and TCP_KEEPIDLE ends at 32767 seconds. derper fails to listen above the
// first and silently keeps the default above the second.
const (
	maxUserTimeout = math.MaxInt32 * time.Millisecond
	maxKeepAlive   = 32767 * time.Second
)

// parse checks text and returns it in the form that derper gets. The error
// says what is allowed.
func (v Variable) parse(text string) (string, error) {
	if err := v.misplaced(text); err != nil {
		return "", err
	}
	switch v.Type {
	case Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return "", errors.New("use true or false")
		}
		return strconv.FormatBool(b), nil
	case Port, HTTPPort:
		return parsePort(text, v.Type == HTTPPort)
	case Count:
		return v.parseCount(text)
	case Rate:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f < 0 || math.IsNaN(f) {
			return "", errors.New("use a number of connections per second, 0 or more, or +Inf for no limit")
		}
		return text, nil
	case Span:
		return v.parseSpan(text)
	case Address:
		return parseAddress(text)
	case Host:
		return text, checkHost(text)
	case HostList, MeshList:
		return parseHosts(text, v.Type == MeshList)
	case Endpoints:
		return parseEndpoints(text)
	case URL:
		return text, checkURL(text)
	case HomePage:
		if text == "blank" {
			return text, nil
		}
		if checkURL(text) != nil {
			return "", errors.New("use blank or a URL that starts with http:// or https://, or leave it empty for derper's own page")
		}
		return text, nil
	case CertMode:
		switch text {
		case "manual", "letsencrypt", "gcp":
			return text, nil
		}
		return "", errors.New("use manual, letsencrypt or gcp")
	case Hex64:
		if b, err := hex.DecodeString(text); err != nil || len(b) != 32 {
			return "", errors.New("use 64 hexadecimal digits, for example from: openssl rand -hex 32")
		}
		return text, nil
	case NameList:
		return parseNames(text)
	case Whole, Unsigned, Float, Length:
		return v.parseGeneric(text)
	case Base64:
		_, raw := base64.RawURLEncoding.DecodeString(text)
		_, std := base64.StdEncoding.DecodeString(text)
		if raw != nil && std != nil {
			return "", errors.New("use base64, as the certificate authority printed it")
		}
		return text, nil
	}
	return text, nil
}

// misplaced finds what is no value of any type, but something around one.
func (v Variable) misplaced(text string) error {
	path := strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../") || strings.HasPrefix(text, "file:")
	switch {
	case strings.HasPrefix(text, byteOrderMark):
		return errors.New("begins with a byte order mark; save the file as UTF-8 without one")
	case strings.ContainsAny(text[:1], `"'`):
		return errors.New("remove the quotes; docker's --env-file and the lists of compose pass them on")
	case strings.HasPrefix(text, v.Name+"=") || v.Alias != "" && strings.HasPrefix(text, v.Alias+"=") || strings.HasPrefix(text, v.FileName()+"="):
		return errors.New("begins with the variable's own name; leave only the value")
	case v.Type == Path || !path:
		return nil
	case v.Type == Any && !v.Secret:
		return nil
	case v.Secret:
		return fmt.Errorf("is a path, and the secret itself must stand here; set %s to the path", v.FileName())
	case v.Type == NameList || v.Type == Text && v.Name != "SECRETS_PREFIX":
		return errors.New("is a path, and the value itself must stand here")
	}
	return nil
}

const byteOrderMark = "\ufeff"

func parsePort(text string, orNone bool) (string, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err == nil && (n >= 1 && n <= 65535 || orNone && n == -1) {
		return strconv.FormatInt(n, 10), nil
	}
	msg := "use a port from 1 to 65535"
	if orNone {
		msg += ", or -1 for no HTTP"
	}
	if strings.HasPrefix(text, "tcp://") || strings.HasPrefix(text, "udp://") {
		msg += "; kubernetes sets this for a service of that name unless the pod has enableServiceLinks: false"
	}
	return "", errors.New(msg)
}

func (v Variable) parseCount(text string) (string, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	// The seed's default does not fit an int of 32 bits, and derper would
	// refuse it there. It means "no limit", so derper's own default does.
	if text == v.Default && n > maxInt {
		return "", nil
	}
	if err != nil || n < 0 || n > maxInt {
		return "", fmt.Errorf("use a whole number from 0 to %d", maxInt)
	}
	return strconv.FormatInt(n, 10), nil
}

func (v Variable) parseSpan(text string) (string, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return "", errors.New("use a duration, 0 or more, with a unit, like 90s or 10m")
	}
	switch {
	case v.Flag == "tcp-user-timeout" && d > maxUserTimeout:
		return "", fmt.Errorf("use at most %v; the kernel takes no more", maxUserTimeout)
	case v.Flag == "tcp-keepalive-time" && d > maxKeepAlive:
		return "", fmt.Errorf("use at most %v; the kernel takes no more", maxKeepAlive)
	}
	return d.String(), nil
}

// parseGeneric takes what package flag does.
func (v Variable) parseGeneric(text string) (string, error) {
	bits := 64
	if v.kind == KindInt || v.kind == KindUint {
		bits = strconv.IntSize
	}
	switch v.Type {
	case Whole:
		n, err := strconv.ParseInt(text, 0, bits)
		if err != nil {
			return "", errors.New("use a whole number")
		}
		return strconv.FormatInt(n, 10), nil
	case Unsigned:
		n, err := strconv.ParseUint(text, 0, bits)
		if err != nil {
			return "", errors.New("use a whole number, 0 or more")
		}
		return strconv.FormatUint(n, 10), nil
	case Float:
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return "", errors.New("use a number")
		}
		return text, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return "", errors.New("use a duration with a unit, like 90s or 10m")
	}
	return d.String(), nil
}

func parseAddress(text string) (string, error) {
	fail := errors.New("use :port, ip:port, or [ip]:port for IPv6, with a port from 1 to 65535")
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fail
	}
	if port == "https" {
		port = "443"
	}
	if port, err = parsePort(port, false); err != nil {
		return "", fail
	}
	if host == "localhost" {
		host = "127.0.0.1" // looking names up would make the program larger
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		return "", fail
	}
	return net.JoinHostPort(host, port), nil
}

// parseEndpoints takes what tailscaled takes: addresses that others reach, not names.
func parseEndpoints(text string) (string, error) {
	var all []string
	for _, item := range strings.Split(text, ",") {
		item = strings.TrimSpace(item)
		a, err := netip.ParseAddrPort(item)
		if err != nil || a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().IsUnspecified() || a.Addr().IsLoopback() || a.Addr().IsMulticast() {
			return "", fmt.Errorf("use public addresses with the published port, like 203.0.113.7:40000 or [2001:db8::7]:40000, separated by commas; %q is none", item)
		}
		all = append(all, a.String())
	}
	return strings.Join(all, ","), nil
}

// checkHost takes what derper can serve: it compares the name with the one
// that the client asks for, letter by letter.
func checkHost(text string) error {
	if ip := net.ParseIP(text); ip != nil {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return errors.New("is no address that clients can reach; ADDR says where to listen, this is the name or address by which the relay is known")
		}
		return nil
	}
	if isIPLike(text) {
		return errors.New("use a plain IP address, without brackets, port, zone or prefix length, or a DNS name")
	}
	if strings.HasSuffix(text, ".") {
		return errors.New("leave out the dot at the end; clients do not send it")
	}
	if !isDNSName(text) {
		return errors.New("use a DNS name like derp.example.com or an IP address; no scheme, port or wildcard")
	}
	return nil
}

// isIPLike reports whether text was meant to be an IP address.
func isIPLike(text string) bool {
	return strings.Count(text, ":") > 1 || strings.Trim(text, "0123456789./[]") == ""
}

func isDNSName(text string) bool {
	if len(text) == 0 || len(text) > 253 {
		return false
	}
	for _, label := range strings.Split(text, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// parseHosts drops the blanks around the names, which derper would take as
// part of them.
func parseHosts(text string, pairs bool) (string, error) {
	var hosts []string
	for _, item := range strings.Split(text, ",") {
		item = strings.TrimSpace(item)
		parts := []string{item}
		if pairs {
			parts = strings.Split(item, "/")
		}
		for _, part := range parts {
			if h, port, err := net.SplitHostPort(part); err == nil && pairs {
				if _, err := parsePort(port, false); err == nil {
					part = h
				}
			}
			if len(parts) > 2 || net.ParseIP(part) == nil && !isDNSName(strings.TrimSuffix(part, ".")) {
				return "", fmt.Errorf("use DNS names separated by commas; %q is none", item)
			}
		}
		hosts = append(hosts, item)
	}
	return strings.Join(hosts, ","), nil
}

// parseNames drops the blanks around the names, which derper would take as part of them.
func parseNames(text string) (string, error) {
	names := strings.Split(text, ",")
	for i, name := range names {
		if names[i] = strings.TrimSpace(name); names[i] == "" {
			return "", errors.New("use names separated by commas; one of them is empty")
		}
	}
	return strings.Join(names, ","), nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		!strings.HasPrefix(text, u.Scheme+"://") {
		return errors.New("use a URL like https://example.com/path")
	}
	return nil
}
