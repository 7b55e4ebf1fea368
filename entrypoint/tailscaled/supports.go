package tailscaled

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// PeerRelay are the members that a configuration with a peer relay has. That of
// tailscaled 1.102 knows them, that of 1.96 does not, although its preferences,
// and so its program, name both.
var PeerRelay = []string{"RelayServerPort", "RelayServerStaticEndpoints"}

// Supports reports whether the tailscaled at a path knows all of these members
// of its configuration file. An error says that it did not tell.
//
// It asks the program: tailscaled reads the file before it does anything, and
// ends at the first member that is wrong. The last one here always is. (To look
// for the name in the program's bytes would not do, see [PeerRelay].)
func Supports(ctx context.Context, program string, members ...string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	const wrong = "Hostname" // 0 is not its type
	var file strings.Builder
	file.WriteString(`{"version":"alpha0"`)
	for _, m := range members {
		name, err := json.Marshal(m)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(&file, `,%s:null`, name)
	}
	fmt.Fprintf(&file, `,%q:0}`, wrong)

	cmd := exec.CommandContext(ctx, program, "--tun=userspace-networking", "--state=mem:", "--socket=/nowhere/tailscaled.sock", "--port=0", "--config=/proc/self/fd/0")
	cmd.Stdin = strings.NewReader(file.String())
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	for _, m := range members {
		if bytes.Contains(out, fmt.Appendf(nil, "%q", m)) {
			return false, nil
		}
	}
	if bytes.Contains(out, []byte("ConfigVAlpha."+wrong)) {
		return true, nil
	}
	return false, fmt.Errorf("%s does not tell whether its configuration knows %s: %v: %.300s", program, strings.Join(members, ", "), err, bytes.TrimSpace(out))
}
