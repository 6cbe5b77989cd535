"""Pods, one RPC a file: run, stop, remove, status, list; and what they share."""
