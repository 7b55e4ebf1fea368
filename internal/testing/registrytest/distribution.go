package registrytest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/xavieralpha/derper/internal/testing/freeport"
	"github.com/xavieralpha/derper/internal/testing/tool"
)

// Distribution runs the registry of github.com/distribution/distribution, which is Docker's,
// on a free port until the test ends.
func Distribution(t testing.TB, o Options) *Registry {
	t.Helper()
	program := tool.Build(t, "registry")
	// Between the choice of a port and its use by the registry, another program
	// may take it.
	var err error
	for range 5 {
		var r *Registry
		if r, err = startDistribution(t, program, o); err == nil {
			return r
		}
	}
	t.Fatal(err)
	return nil
}

func startDistribution(t testing.TB, program string, o Options) (*Registry, error) {
	t.Helper()
	port, err := freeport.Choose("127.0.0.1")
	if err != nil {
		return nil, err
	}
	r := &Registry{Host: fmt.Sprintf("127.0.0.1:%d", port), options: o, Transport: http.DefaultTransport, logs: true}

	dir := t.TempDir()
	if o.Dir == "" {
		o.Dir = filepath.Join(dir, "storage")
	}
	serve := map[string]any{"addr": r.Host}
	config := map[string]any{
		"version": "0.1",
		"log":     map[string]any{"level": "error"},
		"storage": map[string]any{
			"filesystem": map[string]any{"rootdirectory": o.Dir},
			"delete":     map[string]any{"enabled": true},
		},
		"http": serve,
	}
	if o.TLS {
		cert := newCertificate(t)
		serve["tls"] = map[string]any{"certificate": cert.file, "key": cert.key}
		r.CA, r.Transport = cert.ca, cert.transport
	}
	if o.Username != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(o.Password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		passwords := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(passwords, fmt.Appendf(nil, "%s:%s\n", o.Username, hash), 0o600); err != nil {
			return nil, err
		}
		config["auth"] = map[string]any{"htpasswd": map[string]any{"realm": "test", "path": passwords}}
	}
	data, err := json.Marshal(config) // which is YAML, too
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return nil, err
	}

	cmd := exec.Command(program, "serve", name)
	// Without the variable, it sends what it does to a collector.
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr := &tail{}
	cmd.Stderr = stderr
	started, ended := make(chan error), make(chan struct{})
	go func() {
		endWithParent(cmd)
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		r.readLog(stdout)
		cmd.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	stop := func() {
		cmd.Process.Kill()
		<-ended
	}
	if err := r.await(ended); err != nil {
		stop()
		return nil, fmt.Errorf("registry: %w\n%s", err, stderr)
	}
	t.Cleanup(stop)
	return r, nil
}

// await waits until the registry answers, with credentials where it has them, so
// that another program on its port is not taken for it.
func (r *Registry) await(ended <-chan struct{}) error {
	client := &http.Client{Transport: r.Transport, Timeout: 5 * time.Second}
	req, err := http.NewRequest(http.MethodGet, r.URL().JoinPath("/v2/").String(), nil)
	if err != nil {
		return err
	}
	if r.options.Username != "" {
		req.SetBasicAuth(r.options.Username, r.options.Password)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, rerr := client.Do(req)
		if rerr == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				r.Forget()
				return nil
			}
			rerr = fmt.Errorf("answers %s", resp.Status)
		}
		select {
		case <-ended:
			return fmt.Errorf("ended: %w", rerr)
		default:
		}
		if time.Now().After(deadline) {
			return rerr
		}
	}
}

// accessLine matches a line of the access log, in Apache's combined format.
var accessLine = regexp.MustCompile(`"([A-Z]+) (\S+) HTTP/[0-9.]+" (\d{3}) `)

func (r *Registry) readLog(stdout io.Reader) {
	s := bufio.NewScanner(stdout)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m := accessLine.FindStringSubmatch(s.Text()); m != nil {
			status, _ := strconv.Atoi(m[3])
			r.record(Request{m[1], m[2], status})
		}
	}
}

// tail keeps the end of what a program says.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if n := len(t.data) - 8192; n > 0 {
		t.data = t.data[n:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
