"""The tests: unit/ needs no root, system/ runs real kernels, registries, plugins and peers, demo/ is `make demo`."""
