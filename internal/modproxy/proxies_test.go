package modproxy

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The list of proxies means what it means to the go command:
// https://go.dev/ref/mod#environment-variables, GOPROXY.
func TestListOfProxies(t *testing.T) {
	answering := func(status int) string {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.WriteHeader(status)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	missing, gone, forbidden, broken := answering(404), answering(410), answering(403), answering(500)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	for _, test := range []struct {
		name, list string // GOOD stands for the proxy that has everything
		ok         bool
		want       string // in the error
	}{
		{"one", "GOOD", true, ""},
		{"slash at the end", "GOOD/", true, ""},
		{"spaces", " GOOD , direct", true, ""},
		{"comma after 404", missing + ",GOOD", true, ""},
		{"comma after 410", gone + ",GOOD", true, ""},
		{"comma after 403", forbidden + ",GOOD", false, "403"},
		{"comma after 500", broken + ",GOOD", false, "500"},
		{"comma after nobody", dead.URL + ",GOOD", false, "cannot be reached"},
		{"bar after 404", missing + "|GOOD", true, ""},
		{"bar after 403", forbidden + "|GOOD", true, ""},
		{"bar after 500", broken + "|GOOD", true, ""},
		{"bar after nobody", dead.URL + "|GOOD", true, ""},
		{"comma, then bar", missing + "," + broken + "|GOOD", true, ""},
		{"bar, then comma", broken + "|" + forbidden + ",GOOD", false, "403"},
		{"direct first", "direct,GOOD", true, ""},
		{"nothing between commas", ",,GOOD", true, ""},
		{"off", "off", false, "names no module proxy"},
		{"off first", "off,GOOD", false, "names no module proxy"},
		{"direct only", "direct", false, "names no module proxy"},
		{"folder", "FILE", true, ""},
		{"folder that is empty, then proxy", "file:///nonexistent,GOOD", true, ""},
		{"name without scheme", "proxy.invalid,GOOD", false, "begins with https://"},
		{"other scheme", "ftp://proxy.invalid|GOOD", false, "begins with https://"},
		{"no URL", "http://[::1,GOOD", false, "not a URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			folder := t.TempDir()
			name := filepath.Join(folder, filepath.FromSlash(samplePath))
			if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, w.zip, 0o666); err != nil {
				t.Fatal(err)
			}
			w.client.Proxies = strings.NewReplacer("GOOD", w.proxy.URL, "FILE", "file://"+folder).Replace(test.list)
			// The checksum database is reached directly, whatever the list says.
			w.client.SumDB += " " + w.proxy.URL + "/sumdb/sums.example.com"
			dir, err := w.fetch(t.Context(), w.sum)
			if test.ok {
				if err != nil {
					t.Fatal(err)
				}
				w.whole(dir)
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v: does not say %q", err, test.want)
			}
			w.nothingLeft(dir)
		})
	}
}

// A proxy without the module: the error can be told from a network that is down.
func TestNoSuchModule(t *testing.T) {
	w := newWorld(t)
	w.special(samplePath, http.NotFound)
	dir, err := w.fetch(t.Context(), w.sum)
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	w.nothingLeft(dir)
}

// A proxy's password is in no error, however the request fails.
func TestPasswordIsKept(t *testing.T) {
	const password = "s3cr3t"
	for name, test := range map[string]func(w *world) string{
		"403":         func(w *world) string { w.special(samplePath, status(403)); return w.proxy.URL },
		"500":         func(w *world) string { w.special(samplePath, status(500)); return w.proxy.URL },
		"tampered":    func(w *world) string { w.zip, _ = makeZip(t, sample, nil); return w.proxy.URL },
		"no zip":      func(w *world) string { w.zip = []byte("text"); return w.proxy.URL },
		"cut":         func(w *world) string { w.special(samplePath, cut); return w.proxy.URL },
		"nobody":      func(w *world) string { w.proxy.Close(); return w.proxy.URL },
		"bad port":    func(w *world) string { return "http://localhost:port" },
		"bad scheme":  func(w *world) string { return "gopher://localhost" },
		"after off":   func(w *world) string { return "off,http://localhost" },
		"redirection": func(w *world) string { w.special(samplePath, redirectToItself); return w.proxy.URL },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if name != "nobody" {
				w.client.SumDB += " " + w.proxy.URL + "/sumdb/sums.example.com"
			}
			w.client.Proxies = strings.Replace(test(w), "//", "//user:"+password+"@", 1)
			dir, err := w.fetch(t.Context(), w.sum)
			if err == nil {
				t.Fatal("fetched")
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("it has the password: %v", err)
			}
			w.nothingLeft(dir)
		})
	}
	t.Run("it is sent", func(t *testing.T) {
		w := newWorld(t)
		w.special(samplePath, func(rw http.ResponseWriter, r *http.Request) {
			if user, got, _ := r.BasicAuth(); user != "user" || got != password {
				http.Error(rw, "who are you", http.StatusUnauthorized)
				return
			}
			rw.Write(w.zip)
		})
		u, err := url.Parse(w.proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("user", password)
		w.client.Proxies = u.String()
		if _, err := w.fetch(t.Context(), w.sum); err != nil {
			t.Error(err)
		}
	})
}

func status(code int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }
}

func cut(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Length", "1000")
	rw.Write(make([]byte, 500))
	panic(http.ErrAbortHandler)
}

func redirectToItself(rw http.ResponseWriter, r *http.Request) {
	http.Redirect(rw, r, r.URL.Path, http.StatusFound)
}
