"""Measure CRI daemons and OCI runtimes side by side, in one run, through one client."""
