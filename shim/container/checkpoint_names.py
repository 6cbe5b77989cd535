"""The files of a checkpoint, as kubelet's tools and the other runtimes name them."""

from __future__ import annotations

from shim.monitor.checkpoint import IMAGES

CONFIG = "config.dump"
"""What container it was, of which image."""
SPEC = "spec.dump"
"""Its config.json."""
STATUS = "status.dump"
"""Its status as the CRI gives it."""
TIMES = "status"
"""Its times, in the form of containerd's own file."""
LOG = "container.log"
INVENTORY = f"{IMAGES}/inventory.img"
"""Every checkpoint of criu has this image."""
OPTIONS = "options.json"
"""Of a container that is to be restored: what criu is told."""
POD_OPTIONS = "pod.options"
POD_CONFIG = "pod.dump"
"""Of a pod: which folder has which container, and the pod's configuration."""
