"""Suites and benchmarks that judge any container runtime, Wherry's peers included."""
