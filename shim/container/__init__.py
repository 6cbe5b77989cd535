"""Containers, one RPC a file: create, start, stop, remove, status, list, exec_sync, reopen_log; and what they share."""
