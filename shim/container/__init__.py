"""Containers: one RPC a file, and the spec that each container runs by."""
