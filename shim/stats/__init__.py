"""What containers and pods use: cgroup files, the pod's network, the writable layer, and the CRI's messages made of them.

Parsers (`parse`) are pure; `cgroup`, `network`, `processes` and `layer` read by path and never fork; `service` puts them
together on one thread beside the event loop.
"""
