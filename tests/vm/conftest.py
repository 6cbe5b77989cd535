"""What is inside is for the virtual machine only, where tests/vm/guest/run.sh sets the variable."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("WHERRY_VM") else ["inside", "legacy", "crash", "selinux"]
