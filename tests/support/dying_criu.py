"""A criu that is killed in the middle: a real one, whose conversation is passed on until it tells of a certain moment.

CRIU is the real one, CRIU_DIES_AT the name of the notification (criu.org/Action_scripts) at which it gets SIGKILL.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys


def main() -> None:
    """Stand between the caller and criu."""
    real = os.environ["CRIU"]
    if sys.argv[1] != "swrk":
        os.execv(real, ["criu", *sys.argv[1:]])
    caller = socket.socket(fileno=int(sys.argv[2]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.set_inheritable(False)
    theirs.set_inheritable(True)
    # criu has to find the descriptors that requests name by number
    with subprocess.Popen([real, "swrk", str(theirs.fileno())], close_fds=False) as criu:
        theirs.close()
        while data := caller.recv(1 << 16):
            ours.send(data)
            answer = ours.recv(1 << 16)
            if os.environ["CRIU_DIES_AT"].encode() in answer:
                criu.send_signal(signal.SIGKILL)
                criu.wait()
                sys.exit(1)
            caller.send(answer)
        ours.close()


if __name__ == "__main__":
    main()
