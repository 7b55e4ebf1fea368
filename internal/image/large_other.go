//go:build !linux

package image

const largeFile = 0
