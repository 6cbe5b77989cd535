"""Every command of `wherry-oci`: what it does, its options, and the function that does it."""

from __future__ import annotations

GLOBAL_OPTIONS = """
   --debug              log more
   --log PATH           write the log to a file instead of standard error
   --log-format FORMAT  text (the default) or json
   --root PATH          folder of the containers' state, on a tmpfs (default: /run/wherry/oci)
   --criu PATH          the criu that checkpoint and restore use (default: the first in PATH)
   --cgroup-manager NAME  cgroupfs, systemd or disabled, as crun spells it
   --log-level LEVEL    error, warning or debug, as crun spells it
   --systemd-cgroup     make cgroups through systemd; cgroupsPath is slice:prefix:name then
   --rootless VALUE     whether to do without cgroups that may not be written: true, false or auto (the default)
   --help, -h           show help
   --version, -v        print the version
"""

_CONSOLE_SOCKET = "--console-socket PATH  a listening unix socket to receive the master of the terminal"
_MAKE = f"""
   --bundle, -b PATH  the bundle's folder (default: the current one)
   --config, -f PATH  the document (default: the bundle's config.json)
   {_CONSOLE_SOCKET}
   --pidfd-socket PATH  a listening unix socket to receive a pidfd of init
   --pid-file PATH  write the process id of init to this file
   --no-pivot  use MS_MOVE instead of pivot_root(2), for a root on a ramdisk
   --no-new-keyring  let the container share the caller's session keyring
   --preserve-fds N  pass N more descriptors, from 3 on; all of them must be open
"""
_IMAGES = """
   --image-path PATH  folder of criu's images (default: checkpoint)
   --work-path PATH  folder for criu's log (default: that of the images)
   --tcp-established  allow open TCP connections
   --ext-unix-sk  allow unix sockets connected to the outside
   --shell-job  allow a process that belongs to a session outside
   --file-locks  keep file locks, which is safe only where no process outside has them
   --manage-cgroups-mode MODE  what criu does with cgroups: soft (the default), full, strict or ignore
   --empty-ns KIND ...  restore a namespace without its properties; network, which always is
   --auto-dedup  punch what is not needed any more out of the images
   --lazy-pages  bring memory only when it is used (userfaultfd)
"""
_LIMITS = """
   --resources, -r PATH  read linux.resources from this file ("-": standard input)
   --blkio-weight N  weight of block I/O, 10 to 1000
   --cpu-period N  CFS period in microseconds
   --cpu-quota N  CFS quota in microseconds a period
   --cpu-burst N  CFS burst in microseconds
   --cpu-share N  CPU shares
   --cpu-rt-period N  real-time period in microseconds
   --cpu-rt-runtime N  real-time runtime in microseconds
   --cpu-idle N  1 to give only what others leave
   --cpuset-cpus LIST  CPUs to use
   --cpuset-mems LIST  memory nodes to use
   --memory BYTES  memory limit, with k, m, g or t
   --memory-reservation BYTES  memory to keep
   --memory-swap BYTES  memory and swap limit; -1 for no limit
   --kernel-memory BYTES  ignored, as by kernels since 5.4
   --kernel-memory-tcp BYTES  ignored
   --pids-limit N  number of processes; -1 for no limit
   --l3-cache-schema TEXT  Intel RDT: the schema of the L3 cache
   --mem-bw-schema TEXT  Intel RDT: the schema of the memory bandwidth
"""

# name: (summary, arguments, least and most of them (None: any number), options may follow arguments, options, function)
Command = tuple[str, str, int, "int | None", bool, str, str]

COMMANDS: dict[str, Command] = {
    "checkpoint": (
        "save a running container into images, which ends it",
        "<container-id>",
        1,
        1,
        True,
        f"""
   {_IMAGES.strip()}
   --parent-path PATH  folder of an earlier --pre-dump, relative to --image-path
   --leave-running  let the container run on
   --tcp-skip-in-flight  leave out TCP connections that are only being made
   --link-remap  give unlinked files a name where that is possible
   --status-fd N  write a zero byte to this descriptor once lazy pages are served
   --page-server ADDRESS:PORT  send the memory there
   --pre-dump  save only memory, and let the container run on
""",
        "checkpoint:checkpoint",
    ),
    "create": ("create a container", "<container-id>", 1, 1, True, _MAKE, "lifecycle:create"),
    "delete": (
        "delete what a stopped container still holds",
        "<container-id>",
        1,
        1,
        True,
        """
   --force, -f  kill the container if it still runs; an absent one is no error
   --regex, -r  the argument is a regular expression: delete every container it is found in
""",
        "lifecycle:delete",
    ),
    "events": (
        "show what a container uses, again and again, and when its memory runs out",
        "<container-id>",
        1,
        1,
        True,
        """
   --interval DURATION  time between two looks (default: 5s)
   --stats  look once and end
""",
        "events:events",
    ),
    "exec": (
        "execute one more process inside a container",
        "<container-id> <command> [args...]",
        1,
        None,
        False,
        f"""
   {_CONSOLE_SOCKET}
   --pidfd-socket PATH  a listening unix socket to receive a pidfd of the process
   --cwd PATH  working directory inside the container
   --env, -e NAME=VALUE ...  set an environment variable
   --tty, -t  give the process a terminal
   --user, -u UID[:GID]  ids of the process
   --additional-gids, -g GID ...  one more group
   --process, -p PATH  read the process from this JSON file
   --detach, -d  do not wait for the process
   --pid-file PATH  write its process id to this file
   --process-label LABEL  SELinux label
   --apparmor PROFILE  AppArmor profile
   --no-new-privs  set no_new_privs
   --cap, -c CAPABILITY ...  add a capability
   --preserve-fds N  pass N more descriptors, from 3 on; all of them must be open
   --cgroup PATH ...  run in an existing sub-cgroup; [controller,...:]path
   --ignore-paused  also in a paused container
""",
        "execute:execute",
    ),
    "features": ("show what this runtime can do, as JSON", "", 0, 0, True, "", "features:features"),
    "kill": (
        "send a signal (default: SIGTERM) to the container's init",
        "<container-id> [signal]",
        1,
        2,
        True,
        "--all, -a  send it to every process of the container",
        "lifecycle:kill",
    ),
    "list": (
        "list the containers below --root",
        "",
        0,
        0,
        True,
        """
   --format, -f FORMAT  table (the default) or json
   --quiet, -q  only ids
""",
        "show:list_containers",
    ),
    "mounts": (
        "add mounts to a running container, or remove them",
        "add|remove <container-id> <file>",
        3,
        3,
        True,
        "",
        "mounts:mounts",
    ),
    "pause": ("freeze every process of a container", "<container-id>", 1, 1, True, "", "lifecycle:pause"),
    "ps": (
        "list the processes inside a container",
        "<container-id> [ps options]",
        1,
        None,
        False,
        "--format, -f FORMAT  table (the default) or json",
        "show:ps",
    ),
    "restore": (
        "make a container from the images of a checkpoint",
        "<container-id>",
        1,
        1,
        True,
        f"""
   --bundle, -b PATH  the bundle's folder (default: the current one)
   {_CONSOLE_SOCKET}
   --pid-file PATH  write the process id of init to this file
   --detach, -d  do not wait for the container
   --no-subreaper  do not adopt the processes init leaves behind
   --no-pivot  ignored: criu enters the root
   --lsm-profile TYPE:NAME  another security profile for the processes
   --lsm-mount-context LABEL  another security label for the mounts
   {_IMAGES.strip()}
""",
        "checkpoint:restore",
    ),
    "resume": ("let a paused container run on", "<container-id>", 1, 1, True, "", "lifecycle:resume"),
    "run": (
        "create and run a container",
        "<container-id>",
        1,
        1,
        True,
        f"""
   {_MAKE.strip()}
   --detach, -d  do not wait for the container
   --keep  do not delete the container when it has ended
   --no-subreaper  do not adopt the processes init leaves behind
""",
        "lifecycle:run",
    ),
    "spec": (
        "write a new config.json",
        "",
        0,
        0,
        True,
        """
   --bundle, -b PATH  the bundle's folder (default: the current one)
   --rootless  write one for a user without privileges
""",
        "show:spec",
    ),
    "start": ("execute the program of a created container", "<container-id>", 1, 1, True, "", "lifecycle:start"),
    "state": ("print a container's state as JSON", "<container-id>", 1, 1, True, "", "show:state"),
    "update": ("change a container's resource limits", "<container-id>", 1, 1, True, _LIMITS, "update:update"),
}
