// Package admission speaks derper's protocol for admission controllers, from
// both ends: it asks the one that the user has, and it is one, for a list of
// node keys in a file.
package admission

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Unknown nodes are logged once in this time, so many of them.
const (
	strangerInterval = time.Hour
	maxStrangers     = 1024
)

// Nodes lets in the nodes whose keys are in a file. It looks at the file at
// each question, so a change counts at once; and it lets nobody in without one.
type Nodes struct {
	path string
	logf func(format string, args ...any)
	now  func() time.Time

	mu   sync.Mutex
	list list

	strangers map[nodeKey]time.Time // when they were logged
	more      int                   // questions about others, since moreAt
	moreAt    time.Time             // when those were logged

	server *http.Server
}

// NewNodes reads the file at path. A file that is missing or broken is logged,
// see [Nodes.Err], and may come later.
func NewNodes(path string, logf func(format string, args ...any)) *Nodes {
	n := &Nodes{path: path, logf: logf, now: time.Now, strangers: make(map[nodeKey]time.Time)}
	n.Err()
	return n
}

// Err looks at the file, and says why it lets nobody in; nil if it does.
func (n *Nodes) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refresh()
	return n.list.err
}

func (n *Nodes) refresh() {
	old := n.list
	if !n.list.refresh(n.path, n.now()) || n.list.same(old) {
		return
	}
	for _, complaint := range n.list.complaints {
		n.logf("warning: VERIFY_NODES: %s", complaint)
	}
	switch count := len(n.list.keys); {
	case n.list.err != nil:
		n.logf("NO CLIENT IS LET IN: VERIFY_NODES: %v", n.list.err)
	case count == 1:
		n.logf("VERIFY_NODES: 1 node")
	default:
		n.logf("VERIFY_NODES: %d nodes", count)
	}
}

// allow reports whether a node is let in, and logs those that are not.
func (n *Nodes) allow(key nodeKey, source netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refresh()
	if n.list.keys[key] {
		delete(n.strangers, key)
		return true
	}
	now := n.now()
	if last, ok := n.strangers[key]; ok && now.Sub(last) < strangerInterval {
		return false
	}
	if len(n.strangers) >= maxStrangers {
		for k, last := range n.strangers {
			if now.Sub(last) >= strangerInterval {
				delete(n.strangers, k)
			}
		}
	}
	if len(n.strangers) >= maxStrangers {
		n.more++
		if now.Sub(n.moreAt) >= strangerInterval {
			n.logf("VERIFY_NODES: more than %d unknown nodes within an hour; the rest is not named, and asked %d times since it was last said", maxStrangers, n.more)
			n.more, n.moreAt = 0, now
		}
		return false
	}
	n.strangers[key] = now
	from := "an unknown address"
	if source.IsValid() {
		from = source.String()
	}
	n.logf("not in the file of VERIFY_NODES: %s from %s; to let it in, add it there", key, from)
	return false
}

// Handler answers derper's questions, POSTs of tailcfg.DERPAdmitClientRequest.
// derper takes any status but 200 for a no.
func (n *Nodes) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "only POST", http.StatusMethodNotAllowed)
			return
		}
		var q request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAnswer)).Decode(&q); err != nil {
			http.Error(w, "no question of derper", http.StatusBadRequest)
			return
		}
		key, err := parseKey(q.NodePublic)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		source, _ := netip.ParseAddr(q.Source)             // only for the log
		allow := n.allow(key, source.Unmap().WithZone("")) // which a zone could break
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer{&allow})
	})
}

// Listen answers on a port of loopback that is free, until Close. The URL has a
// path that nobody guesses, so that who else is on this machine cannot ask who
// is let in.
func (n *Nodes) Listen() (url string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		var err6 error
		if ln, err6 = net.Listen("tcp", "[::1]:0"); err6 != nil {
			return "", fmt.Errorf("VERIFY_NODES: no port on loopback for derper's questions: %w", err)
		}
	}
	secret := make([]byte, 16)
	rand.Read(secret)
	path := "/" + hex.EncodeToString(secret)
	mux := http.NewServeMux()
	mux.Handle(path, n.Handler())
	n.server = &http.Server{
		Handler:        mux,
		ReadTimeout:    patience,
		WriteTimeout:   patience,
		IdleTimeout:    time.Minute,
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	go n.server.Serve(ln)
	return "http://" + ln.Addr().String() + path, nil
}

// Close ends what Listen began.
func (n *Nodes) Close() error {
	if n.server == nil {
		return nil
	}
	return n.server.Close()
}
