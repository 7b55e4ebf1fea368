package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// host looks names and addresses up, with the system's name servers or another one.
func host(args []string) error {
	flags := new(pflag.FlagSet)
	kind := flags.StringP("type", "t", "", "a, aaaa, cname, mx, txt, ns or ptr; addresses unless given")
	seconds := flags.IntP("wait", "W", 10, "seconds to wait")
	rest, err := parse(flags, args, "[-t TYPE] [-W SECONDS] NAME [SERVER]", 1, 2)
	if err != nil {
		return err
	}
	resolver := &net.Resolver{PreferGo: true}
	if len(rest) > 1 {
		server := rest[1]
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*seconds)*time.Second)
	defer cancel()
	answers, err := records(ctx, resolver, strings.ToLower(*kind), rest[0])
	slices.Sort(answers)
	for _, answer := range answers {
		fmt.Println(rest[0], answer)
	}
	return err
}

// records are the answers of a kind that there are for a name.
func records(ctx context.Context, r *net.Resolver, kind, name string) (list []string, err error) {
	_, notAddress := netip.ParseAddr(name)
	switch {
	case kind == "ptr", kind == "" && notAddress == nil:
		names, err := r.LookupAddr(ctx, name)
		for _, n := range names {
			list = append(list, "PTR "+n)
		}
		return list, err
	case kind == "", kind == "a", kind == "aaaa":
		network := map[string]string{"": "ip", "a": "ip4", "aaaa": "ip6"}[kind]
		addresses, err := r.LookupNetIP(ctx, network, name)
		for _, a := range addresses {
			if a = a.Unmap(); a.Is4() {
				list = append(list, "A "+a.String())
			} else {
				list = append(list, "AAAA "+a.String())
			}
		}
		return list, err
	case kind == "cname":
		target, err := r.LookupCNAME(ctx, name)
		if err == nil && !strings.EqualFold(strings.TrimSuffix(target, "."), strings.TrimSuffix(name, ".")) { // itself: there is none
			list = append(list, "CNAME "+target)
		}
		return list, err
	case kind == "mx":
		found, err := r.LookupMX(ctx, name)
		for _, mx := range found {
			list = append(list, fmt.Sprintf("MX %d %s", mx.Pref, mx.Host))
		}
		return list, err
	case kind == "txt":
		found, err := r.LookupTXT(ctx, name)
		for _, txt := range found {
			list = append(list, fmt.Sprintf("TXT %q", txt))
		}
		return list, err
	case kind == "ns":
		found, err := r.LookupNS(ctx, name)
		for _, ns := range found {
			list = append(list, "NS "+ns.Host)
		}
		return list, err
	}
	return nil, usageError{fmt.Errorf("no type %q: a, aaaa, cname, mx, txt, ns or ptr", kind)}
}

// wget gets a URL over HTTP. It ends with 8 if the server's answer is an error.
func wget(args []string) error {
	flags := new(pflag.FlagSet)
	output := flags.StringP("output-document", "O", "", "file to write, - for the standard output; by default named as in the URL")
	headers := flags.BoolP("server-response", "S", false, "print the head of the answer")
	quiet := flags.BoolP("quiet", "q", false, "say nothing of what works")
	seconds := flags.IntP("timeout", "T", 0, "seconds that it may take; 0 for any")
	insecure := flags.Bool("no-check-certificate", false, "accept any certificate")
	send := flags.StringArray("header", nil, "a line for the head of the request")
	method := flags.String("method", http.MethodGet, "the request's method")
	body := flags.String("post-data", "", "what to send in a POST request")
	rest, err := parse(flags, args, "[-qS] [-O FILE] [-T SECONDS] [--header LINE] URL", 1, 1)
	if err != nil {
		return err
	}
	if flags.Changed("post-data") {
		*method = http.MethodPost
	}
	url := rest[0]
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	request, err := http.NewRequest(*method, url, strings.NewReader(*body))
	if err != nil {
		return err
	}
	for _, line := range *send {
		name, value, _ := strings.Cut(line, ":")
		if request.Header.Add(name, strings.TrimSpace(value)); strings.EqualFold(name, "host") {
			request.Host = strings.TrimSpace(value)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: *insecure} //nolint:gosec // that is the flag
	client := &http.Client{Transport: transport, Timeout: time.Duration(*seconds) * time.Second}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if *headers {
		fmt.Fprintln(os.Stderr, response.Proto, response.Status)
		response.Header.Write(os.Stderr) //nolint:errcheck // nobody is there to read it
	}
	if response.StatusCode >= 400 {
		fmt.Fprintf(os.Stderr, "wget: %s: %s\n", url, response.Status)
		return status(8)
	}
	return save(response.Body, *output, request.URL.Path, *quiet)
}

// save writes what comes to a file.
func save(body io.Reader, name, urlPath string, quiet bool) error {
	if name == "-" {
		_, err := io.Copy(os.Stdout, body)
		return err
	}
	if name == "" {
		if name = path.Base("/" + urlPath); name == "/" || strings.HasSuffix(urlPath, "/") {
			name = "index.html"
		}
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	n, err := io.Copy(file, body)
	if err = errors.Join(err, file.Close()); err == nil && !quiet {
		fmt.Fprintf(os.Stderr, "%s: %d bytes\n", name, n)
	}
	return err
}
