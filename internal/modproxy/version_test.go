package modproxy

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
)

const (
	sampleList = "/example.com/!sample/@v/list"
	sampleInfo = "/example.com/!sample/@v/v1.2.3.info"
	sampleMod  = "/example.com/!sample/@v/v1.2.3.mod"
)

// answers makes the proxy answer one path with a text.
func (w *world) answers(path, text string) {
	w.special(path, func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, text) })
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	w.answers(sampleList, "v1.10.0\nv1.9.0 2026-01-01T00:00:00Z\nv1.9.0\n\nv2.0.0\nnonsense\nv1.10.0-rc1")
	got, err := w.client.Versions(t.Context(), sample.Path)
	if want := []string{"v1.9.0", "v1.10.0-rc1", "v1.10.0"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	// No release yet.
	w.answers(sampleList, "")
	if got, err := w.client.Versions(t.Context(), sample.Path); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestInfo(t *testing.T) {
	w := newWorld(t)
	w.answers(sampleInfo, `{"Version":"v1.2.3","Time":"2026-01-02T03:04:05+01:00","Origin":{"VCS":"git","URL":"https://example.com","Ref":"refs/tags/v1.2.3","Hash":"0123"},"More":1}`)
	got, err := w.client.Info(t.Context(), sample)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC); got.Version != "v1.2.3" || got.Time != want || *got.Origin != (Origin{"git", "https://example.com", "refs/tags/v1.2.3", "0123"}) {
		t.Errorf("%+v, %+v", got, got.Origin)
	}
	w.answers(sampleInfo, `{"Version":"v1.2.3","Time":"2026-01-02T03:04:05Z"}`)
	if got, err := w.client.Info(t.Context(), sample); err != nil || got.Origin != nil {
		t.Errorf("%+v, %v", got, err)
	}
	w.answers("/example.com/!sample/@latest", `{"Version":"v1.3.0","Time":"2026-01-02T03:04:05Z"}`)
	if got, err := w.client.Latest(t.Context(), sample.Path); err != nil || got.Version != "v1.3.0" {
		t.Errorf("%+v, %v", got, err)
	}
}

// What a proxy answers may be anything; no version is made of it.
func TestWrongInfo(t *testing.T) {
	for _, answer := range []string{"", "<html>please log in</html>", `{"Version":"v1.2.4"}`, `{"Time":"2026-01-02T03:04:05Z"}`, `{"Version":"v1.2.3","Time":"yesterday"}`, "[]"} {
		w := newWorld(t)
		w.answers(sampleInfo, answer)
		if got, err := w.client.Info(t.Context(), sample); err == nil || !strings.Contains(err.Error(), sample.String()) {
			t.Errorf("%q: %+v, %v", answer, got, err)
		}
		w.answers("/example.com/!sample/@latest", strings.ReplaceAll(answer, "v1.2.", "../"))
		if got, err := w.client.Latest(t.Context(), sample.Path); err == nil || !strings.Contains(err.Error(), sample.Path) {
			t.Errorf("latest: %q: %+v, %v", answer, got, err)
		}
	}
}

// A version that a proxy does not give away is not a proxy that cannot be reached.
func TestNotServed(t *testing.T) {
	for status, want := range map[int]bool{401: true, 403: true, 404: true, 410: true, 451: true, 400: false, 429: false, 500: false} {
		w := newWorld(t)
		w.special(sampleInfo, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(status) })
		_, err := w.client.Info(t.Context(), sample)
		if err == nil || NotServed(err) != want || errors.Is(err, ErrUnreachable) {
			t.Errorf("%d: not served %v: %v", status, NotServed(err), err)
		}
	}
	w := newWorld(t)
	w.proxy.Close()
	if _, err := w.client.Info(t.Context(), sample); NotServed(err) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

func TestGoMod(t *testing.T) {
	w := newWorld(t)
	const text = "module example.com/Sample\n"
	sum, err := hashGoMod([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w.known[sample] = sum // this database says the same of a zip and its go.mod
	w.answers(sampleMod, text)
	if got, err := w.client.GoMod(t.Context(), sample); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
	var wrong *SumError
	w.answers(sampleMod, text+"\nretract v1.0.0\n")
	if _, err := w.client.GoMod(t.Context(), sample); !errors.As(err, &wrong) || wrong.Want != sum || wrong.WantFrom != "checksum database" {
		t.Errorf("%v", err)
	}
	if _, err := w.client.GoMod(t.Context(), module.Version{Path: sample.Path, Version: "v9.9.9"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A small file that does not end is not read to its end.
func TestEndlessAnswer(t *testing.T) {
	w := newWorld(t)
	w.special(sampleList, func(rw http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := rw.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	if _, err := w.client.Versions(t.Context(), sample.Path); err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Errorf("%v", err)
	}
}

// A transfer that breaks off is begun again from the start.
func TestListBreaksOff(t *testing.T) {
	w := newWorld(t)
	left := 2
	w.special(sampleList, func(rw http.ResponseWriter, _ *http.Request) {
		if left--; left >= 0 {
			rw.Header().Set("Content-Length", "100")
			io.WriteString(rw, "v1.0.0\n")
			panic(http.ErrAbortHandler)
		}
		io.WriteString(rw, "v1.2.3\n")
	})
	if got, err := w.client.Versions(t.Context(), sample.Path); err != nil || !slices.Equal(got, []string{"v1.2.3"}) {
		t.Errorf("%v, %v", got, err)
	}
}
