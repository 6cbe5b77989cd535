"""A virtual machine with systemd and pure cgroup v2, which few machines that run the tests have themselves.

image     builds root file system, kernel and initrd, once
kernel    the kernel's uncompressed image and the modules that are needed
initrd    the first file system: it loads modules and mounts the root
machine   starts QEMU, runs one command inside, shows its output
inside    the tests that run in it
"""
