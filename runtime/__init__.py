"""Wherry's OCI runtime: standard library and ctypes only."""
