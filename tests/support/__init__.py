"""What system tests, the demo and the benchmarks share: images, registries, daemons and the leak check."""
