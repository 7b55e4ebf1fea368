package image

import "syscall"

// largeFile opens a file of more than 2 GiB on a machine of 32 bits. [os.Open] sets it by
// itself, [os.Root] does not.
const largeFile = syscall.O_LARGEFILE
