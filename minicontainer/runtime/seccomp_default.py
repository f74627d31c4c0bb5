"""The system calls of a container for which nobody asks for anything else: a profile in Docker's JSON format.

It is a list of what is allowed, since the kernel's list grows every year: what is in no list below fails with EPERM,
and what is newer than all of it with ENOSYS. The rule by which a call gets in: ordinary programs make it, and it
reaches nothing that the namespaces, the control groups and the capabilities of the container do not bound. Left out are

- what has no namespace: keys (add_key, request_key, keyctl), the clock, kernel modules, kexec, swap, the kernel's log;
- what makes a way into much of the kernel, for few programs' benefit: user namespaces, where one has every capability
  (unshare, setns, clone with a CLONE_NEW… flag), mounts, bpf, perf events, io_uring, userfaultfd, open_by_handle_at
  (which has been a way out: it opens by number whatever is on the file system, below the root or not);
- what needs privilege anyway, and what nothing has called for twenty years.

Some of it comes back with the capability that it takes: who was given CAP_SYS_ADMIN may mount.

It means what the profile of Docker and Podman means, so that images run alike; see `DIFFERENCES` for where it does not.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DIFFERENCES = (
    "AF_ALG and AF_VSOCK are refused, too, where the upper half of the argument, which the kernel ignores, is not zero",
    "no characters are put into a terminal's input (TIOCSTI, TIOCLINUX): where the container has its caller's terminal,"
    " that is a command in the caller's shell, CVE-2017-5226. The answer is EIO, as where a kernel has it switched off",
)

_FILES = """
    open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2
    pwritev2
    lseek _llseek dup dup2 dup3 fcntl fcntl64 flock truncate truncate64 ftruncate ftruncate64 fallocate
    fadvise64 fadvise64_64 readahead sync syncfs fsync fdatasync sync_file_range sendfile sendfile64 splice tee vmsplice
    copy_file_range cachestat pipe pipe2 memfd_create memfd_secret
"""

_DIRECTORIES = """
    access faccessat faccessat2 chdir fchdir getcwd mkdir mkdirat rmdir getdents getdents64
    link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 readlink readlinkat mknod mknodat
    umask name_to_handle_at
    stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
    statmount listmount
    chmod fchmod fchmodat fchmodat2 chown chown32 lchown lchown32 fchown fchown32 fchownat
    utime utimes futimesat utimensat utimensat_time64
    setxattr lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat
    listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
"""

_WAITING = """
    select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
    timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
"""

_SOCKETS = """
    socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 socketcall
"""

_MEMORY = """
    brk mmap mmap2 munmap mremap remap_file_pages mprotect madvise mincore msync mseal mlock mlock2 mlockall munlock
    munlockall membarrier map_shadow_stack pkey_alloc pkey_free pkey_mprotect
"""

_PROCESSES = """
    fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp getsid setpgid
    setsid set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area rseq restart_syscall uname
    sysinfo getcpu getrusage times prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    pidfd_open process_mrelease futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue uretprobe
    getrandom
"""

_USERS = """
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
    setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32
    setfsuid setfsuid32 setfsgid setfsgid32 getgroups getgroups32 setgroups setgroups32 capget capset
"""

_SIGNALS = """
    kill tkill tgkill pidfd_send_signal pause alarm sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
"""

_LIMITS = """
    getrlimit ugetrlimit setrlimit prlimit64 getpriority setpriority ioprio_get ioprio_set sched_yield
    sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler
    sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
"""

_TIME = """
    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
    clock_nanosleep_time64 nanosleep getitimer setitimer timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64
    adjtimex clock_adjtime clock_adjtime64
"""
"""The last three read the clock's state; to change it takes CAP_SYS_TIME, which the kernel sees to."""

_IPC = """
    ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
    mq_open mq_unlink mq_notify mq_getsetattr mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
"""

_EVERYBODY = (
    _FILES + _DIRECTORIES + _WAITING + _SOCKETS + _MEMORY + _PROCESSES + _USERS + _SIGNALS + _LIMITS + _TIME + _IPC
).split()

_WITH_CAPABILITY = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie "
        "lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open "
        "quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module init_module finit_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}

_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. The bit of NEWTIME is part of clone(2)'s signal."""

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_Entry = dict[str, object]


def _allow(names: str | list[str], **more: object) -> _Entry:
    return {"names": names.split() if isinstance(names, str) else names, "action": "SCMP_ACT_ALLOW", **more}


def _where(index: int, op: str, value: int, two: int = 0) -> list[_Entry]:
    return [{"index": index, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}]


def _refuse(name: str, errno: int, **more: object) -> _Entry:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, **more}


PROFILE: Mapping[str, object] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,  # EPERM
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        _allow(_EVERYBODY),
        *(_allow(names, includes={"caps": [f"CAP_{name}"]}) for name, names in _WITH_CAPABILITY.items()),
        _allow("arch_prctl modify_ldt", includes={"arches": ["amd64"]}),
        _allow(
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
            includes={"arches": ["arm64"]},
        ),
        # Before Linux 4.8 a tracer could change a call after the filter had let it pass.
        _allow("ptrace process_vm_readv process_vm_writev", includes={"minKernel": "4.8"}),
        # Without namespaces of its own. What clone3 is asked for lies in memory, where a filter cannot look; told that
        # there is no such call, the C library takes clone.
        _allow("clone", args=_where(0, "MASKED_EQ", _NEW_NAMESPACES, 0), excludes={"caps": ["CAP_SYS_ADMIN"]}),
        _refuse("clone3", 38, excludes={"caps": ["CAP_SYS_ADMIN"]}),  # ENOSYS
        # Linux as ever, PER_LINUX32, both with UNAME26, and the question (-1). Others, such as READ_IMPLIES_EXEC and
        # ADDR_NO_RANDOMIZE, make attacks on the container's own programs easier.
        *(_allow("personality", args=_where(0, "EQ", value)) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),
        # Every family of addresses but AF_ALG (38), the kernel's ciphers, and AF_VSOCK (40), the way to the hypervisor,
        # which knows no namespaces. (On i386 socketcall leads to them, and is how an older C library opens any socket.)
        _allow("socket", args=_where(0, "LT", 38)),
        _allow("socket", args=_where(0, "EQ", 39)),
        _allow("socket", args=_where(0, "EQ", 41)),
        _allow("socket", args=_where(0, "MASKED_EQ", 0xFFFFFFFFFFFFFFFE, 42)),  # 42 and 43
        _allow("socket", args=_where(0, "MASKED_EQ", 0xFFFFFFFFFFFFFFFC, 44)),  # 44 to 47: there are 46 today
        # Of the number of an ioctl the kernel takes the lower half.
        *(_refuse("ioctl", 5, args=_where(1, "MASKED_EQ", 0xFFFFFFFF, number)) for number in (_TIOCSTI, _TIOCLINUX)),
        _allow("ioctl", args=_where(1, "MASKED_EQ", 0)),  # any other
    ],
}
