package image

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/lock"
)

// Config is how a container of the image starts. Working folder, ports and the
// defaults of the variables are those of the image that this one replaces, so that
// volumes and settings made for it keep working.
func Config(in lock.Inputs) v1.Config {
	return v1.Config{
		Env:        append([]string{"PATH=/usr/local/bin"}, setting.Env()...),
		Entrypoint: []string{"/entrypoint"},
		WorkingDir: "/root",
		ExposedPorts: map[string]struct{}{
			"80/tcp":   {},
			"443/tcp":  {},
			"3478/udp": {},
		},
		Labels: Annotations(in),
		Healthcheck: &v1.HealthConfig{
			Test:        []string{"CMD", "/entrypoint", "healthcheck"},
			Interval:    30 * time.Second,
			Timeout:     5 * time.Second,
			StartPeriod: 10 * time.Second,
			Retries:     3,
		},
	}
}
