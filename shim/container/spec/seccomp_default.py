"""The seccomp profile of containers that ask for RuntimeDefault, as data.

The decisions are those of Docker's and containerd's default profile, which workloads are tested against: an allow-list for
every container, more for capabilities that would be useless without, and clone without CLONE_NEW* for everyone who is not
CAP_SYS_ADMIN. Names that the node's libseccomp or kernel does not know are passed over by OCI runtimes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]

TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times
"""
SIGNALS = """
    kill pause pidfd_open pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4
    sigprocmask sigreturn tgkill tkill
"""
SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    send sendfile sendfile64 sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""
IPC = """
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
POLLING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
    fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll ppoll_time64 pselect6
    pselect6_time64 select
"""
ASYNC_IO = """
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
"""
MEMORY = """
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
    mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
    remap_file_pages
"""
IDENTITY = """
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid
    getresgid getresgid32 getresuid getresuid32 getsid gettid getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setsid setuid setuid32 umask
"""
SCHEDULING = """
    getcpu getpriority ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield setpriority
"""
PROCESSES = """
    execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list
    get_thread_area getrandom getrlimit getrusage ioctl landlock_add_rule landlock_create_ruleset landlock_restrict_self
    lsm_get_self_attr lsm_list_modules lsm_set_self_attr prctl prlimit64 rseq seccomp set_robust_list set_thread_area
    set_tid_address setrlimit sysinfo ugetrlimit uname uretprobe vfork wait4 waitid waitpid
"""
EXTENDED_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr lremovexattr
    lsetxattr removexattr removexattrat setxattr setxattrat
"""
FILE_SYSTEM = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync flock fstat
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 lchown lchown32
    link linkat listmount _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat
    openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
    renameat renameat2 rmdir splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
    syncfs tee truncate truncate64 unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""

ALWAYS = sorted(
    " ".join(
        (
            *(TIME, SIGNALS, SOCKETS, IPC, POLLING, ASYNC_IO, MEMORY),
            *(IDENTITY, SCHEDULING, PROCESSES, EXTENDED_ATTRIBUTES, FILE_SYSTEM),
            # harmless since Linux 4.8, where a tracer could no longer slip past its tracee's filter
            "process_vm_readv process_vm_writev ptrace",
        )
    ).split()
)

# What a capability is useless without; the effects are guarded by the capability itself.
BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree "
        "perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# uname(2)'s machine → the architectures whose calls a process there can make, and calls that only exist there.
ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64 SCMP_ARCH_X86 SCMP_ARCH_X32", "arch_prctl modify_ldt"),
    "i686": ("SCMP_ARCH_X86", "modify_ldt"),
    "aarch64": (
        "SCMP_ARCH_ARM SCMP_ARCH_AARCH64",
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    "armv7l": ("SCMP_ARCH_ARM", "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "swapcontext sync_file_range2"),
    "s390x": ("SCMP_ARCH_S390 SCMP_ARCH_S390X", "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv_flush_icache riscv_hwprobe"),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64", ""),
}

# sys/socket.h: AF_ALG reaches the kernel's crypto parsers, AF_VSOCK the hypervisor; neither is namespaced.
AF_ALG, AF_VSOCK = 38, 40
# sched.h: CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
ENOSYS = 38
# personality(2): PER_LINUX, PER_LINUX32, UNAME26, both, and 0xffffffff to ask
PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)


def default_profile(machine: str, bounding: Sequence[str]) -> Json:
    """Give linux.seccomp for a container with these bounding capabilities on this machine (uname -m).

    The value is shared between containers: it must not be changed.
    """
    return _profile(machine, frozenset(BY_CAPABILITY).intersection(bounding))


@lru_cache(maxsize=64)
def _profile(machine: str, capabilities: frozenset[str]) -> Json:
    architectures, special = ARCHITECTURES.get(machine, ("", ""))
    syscalls = [_allow(*ALWAYS), *_sockets(), *(_allow("personality", _argument(0, value)) for value in PERSONALITIES)]
    extra = set(special.split()).union(*(BY_CAPABILITY[name].split() for name in capabilities)) - set(ALWAYS)
    if extra:
        syscalls.append(_allow(*sorted(extra)))
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = 1 if machine == "s390x" else 0  # s390 has the arguments of clone the other way round
        syscalls.append(_allow("clone", _argument(flags, CLONE_NEW, "SCMP_CMP_MASKED_EQ", value_two=0)))
        # clone3 hides its flags behind a pointer; ENOSYS makes libc fall back to clone, EPERM would not
        syscalls.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    profile: Json = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls}
    if architectures:
        profile["architectures"] = architectures.split()
    return profile


def _allow(*names: str | Json) -> Json:
    """Give a rule for `names`; dicts among them are its argument conditions."""
    rule: Json = {"names": [name for name in names if isinstance(name, str)], "action": "SCMP_ACT_ALLOW"}
    conditions = [condition for condition in names if not isinstance(condition, str)]
    return rule | {"args": conditions} if conditions else rule


def _argument(index: int, value: int, operator: str = "SCMP_CMP_EQ", *, value_two: int | None = None) -> Json:
    condition: Json = {"index": index, "value": value, "op": operator}
    return condition if value_two is None else condition | {"valueTwo": value_two}


def _sockets() -> list[Json]:
    """Allow every family but AF_ALG and AF_VSOCK, in one comparison a rule: several in one rule would be joined by "or"."""
    return [
        _allow("socket", _argument(0, AF_ALG, "SCMP_CMP_LT")),
        _allow("socket", _argument(0, AF_ALG + 1)),
        _allow("socket", _argument(0, AF_VSOCK, "SCMP_CMP_GT")),
    ]
