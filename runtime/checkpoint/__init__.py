"""Checkpoint and restore of containers by criu: the conversation with it, and what it must be told of our containers."""
