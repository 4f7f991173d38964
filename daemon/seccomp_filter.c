/* The list errs towards what libraries may need (malloc, threads, resolving names, certificates): what matters is what is not in
 * it: execve, ptrace, process_vm_*, mount, bpf, modules, keys, namespaces, clocks, uids, io_uring, and sockets other than Internet,
 * Unix, VSOCK and netlink (by which getaddrinfo asks for interfaces).
 * EPERM and not the end of the process: a call that is missing here by mistake must not let a client stop the daemon. */
#include "daemon/seccomp_filter.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/socket.h>

#include "reactor/log.h"

/* Younger than the library of Debian 12. */
#define CACHESTAT 451

static const int allowed_calls[] = {
	/* Asynchronous I/O. */
	SCMP_SYS(io_cancel),
	SCMP_SYS(io_destroy),
	SCMP_SYS(io_getevents),
	SCMP_SYS(io_pgetevents),
	SCMP_SYS(io_setup),
	SCMP_SYS(io_submit),
	/* Files. */
	SCMP_SYS(access),
	CACHESTAT,
	SCMP_SYS(chdir),
	SCMP_SYS(chmod),
	SCMP_SYS(chown),
	SCMP_SYS(close),
	SCMP_SYS(close_range),
	SCMP_SYS(copy_file_range),
	SCMP_SYS(dup),
	SCMP_SYS(dup2),
	SCMP_SYS(dup3),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(fadvise64),
	SCMP_SYS(fallocate),
	SCMP_SYS(fchmod),
	SCMP_SYS(fchown),
	SCMP_SYS(fcntl),
	SCMP_SYS(fdatasync),
	SCMP_SYS(flock),
	SCMP_SYS(fstat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),
	SCMP_SYS(getcwd),
	SCMP_SYS(getdents64),
	SCMP_SYS(inotify_add_watch),
	SCMP_SYS(inotify_init1),
	SCMP_SYS(inotify_rm_watch),
	SCMP_SYS(ioctl),
	SCMP_SYS(linkat),
	SCMP_SYS(lseek),
	SCMP_SYS(lstat),
	SCMP_SYS(memfd_create),
	SCMP_SYS(mkdir),
	SCMP_SYS(mkdirat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(openat2),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(preadv2),
	SCMP_SYS(pwrite64),
	SCMP_SYS(pwritev),
	SCMP_SYS(pwritev2),
	SCMP_SYS(read),
	SCMP_SYS(readahead),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(readv),
	SCMP_SYS(rename),
	SCMP_SYS(renameat),
	SCMP_SYS(renameat2),
	SCMP_SYS(stat),
	SCMP_SYS(statfs),
	SCMP_SYS(statx),
	SCMP_SYS(sync_file_range),
	SCMP_SYS(syncfs),
	SCMP_SYS(umask),
	SCMP_SYS(unlink),
	SCMP_SYS(unlinkat),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	/* Sockets; socket itself, by family, below. */
	SCMP_SYS(accept),
	SCMP_SYS(accept4),
	SCMP_SYS(bind),
	SCMP_SYS(connect),
	SCMP_SYS(getpeername),
	SCMP_SYS(getsockname),
	SCMP_SYS(getsockopt),
	SCMP_SYS(listen),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendfile),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(setsockopt),
	SCMP_SYS(shutdown),
	SCMP_SYS(socketpair),
	SCMP_SYS(splice),
	/* Waiting, and other threads; clone itself, by flags, below. */
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(eventfd2),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(futex),
	SCMP_SYS(get_robust_list),
	SCMP_SYS(gettid),
	SCMP_SYS(kill),
	SCMP_SYS(membarrier),
	SCMP_SYS(pidfd_open),
	SCMP_SYS(pidfd_send_signal),
	SCMP_SYS(pipe2),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(pselect6),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rseq),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigpending),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigqueueinfo),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigsuspend),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(rt_tgsigqueueinfo),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_getparam),
	SCMP_SYS(sched_getscheduler),
	SCMP_SYS(sched_setaffinity),
	SCMP_SYS(sched_yield),
	SCMP_SYS(select),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(set_tid_address),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(signalfd4),
	SCMP_SYS(tgkill),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_gettime),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(waitid),
	SCMP_SYS(wait4),
	/* Memory. */
	SCMP_SYS(brk),
	SCMP_SYS(get_mempolicy),
	SCMP_SYS(madvise),
	SCMP_SYS(mbind),
	SCMP_SYS(mincore),
	SCMP_SYS(mlock),
	SCMP_SYS(mlock2),
	SCMP_SYS(mlockall),
	SCMP_SYS(mmap),
	SCMP_SYS(mprotect),
	SCMP_SYS(mremap),
	SCMP_SYS(msync),
	SCMP_SYS(munlock),
	SCMP_SYS(munlockall),
	SCMP_SYS(munmap),
	SCMP_SYS(set_mempolicy),
	/* The process, the time, random numbers. */
	SCMP_SYS(arch_prctl),
	SCMP_SYS(capget),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(getcpu),
	SCMP_SYS(getegid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getgroups),
	SCMP_SYS(getpgrp),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(getrandom),
	SCMP_SYS(getresgid),
	SCMP_SYS(getresuid),
	SCMP_SYS(getrlimit),
	SCMP_SYS(getrusage),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(getuid),
	SCMP_SYS(nanosleep),
	SCMP_SYS(prctl),
	SCMP_SYS(prlimit64),
	SCMP_SYS(setrlimit),
	SCMP_SYS(sysinfo),
	SCMP_SYS(time),
	SCMP_SYS(uname),
};

static const unsigned allowed_families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_VSOCK };

/* What clone must not make. */
#define NAMESPACES                                                                    \
	((scmp_datum_t)(CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | \
			CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS))

static int add_rules(scmp_filter_ctx filter);
static int add_policies(scmp_filter_ctx filter);
static int add_clone(scmp_filter_ctx filter);

int
seccomp_filter_load(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error;

	if (!filter)
		return -ENOMEM; /* UNTESTED: no fault for malloc */
	error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (error == 0)
		error = add_rules(filter);
	if (error == 0)
		error = seccomp_load(filter);
	seccomp_release(filter);
	if (error < 0)
		log_error("the filter of system calls cannot be set: %s; set seccomp to no to go "
			  "without",
			  strerror(-error));
	return error;
}

/* A call that this architecture does not have is no mistake: libseccomp translates or ignores it. */
static int
add_rules(scmp_filter_ctx filter)
{
	int error;

	for (size_t i = 0; i < ARRAY_COUNT(allowed_calls); i++) {
		error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
		if (error < 0 && error != -EDOM)
			return error;
	}
	for (size_t i = 0; i < ARRAY_COUNT(allowed_families); i++) {
		/* Not SCMP_A0, which clang warns of. */
		struct scmp_arg_cmp is_family = {
			.arg = 0,
			.op = SCMP_CMP_EQ,
			.datum_a = (scmp_datum_t)allowed_families[i],
		};
		error = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
					       &is_family);
		if (error < 0)
			return error;
	}
	error = add_policies(filter);
	if (error < 0)
		return error;
	return add_clone(filter);
}

/* Of scheduling policies those that disk/slice_pace.c changes between: none that could keep others from their CPU. */
static int
add_policies(scmp_filter_ctx filter)
{
	static const int policies[] = { SCHED_OTHER, SCHED_BATCH };

	for (size_t i = 0; i < ARRAY_COUNT(policies); i++) {
		struct scmp_arg_cmp is_policy = {
			.arg = 1,
			.op = SCMP_CMP_EQ,
			.datum_a = (scmp_datum_t)policies[i],
		};
		int error = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW,
						   SCMP_SYS(sched_setscheduler), 1, &is_policy);

		if (error < 0)
			return error;
	}
	return 0;
}

/* No filter can see the flags of clone3, which are in memory; where it does not exist the C library does with clone. */
static int
add_clone(scmp_filter_ctx filter)
{
	struct scmp_arg_cmp makes_none = {
		.arg = 0,
		.op = SCMP_CMP_MASKED_EQ,
		.datum_a = NAMESPACES,
		.datum_b = 0,
	};
	int error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (error < 0 && error != -EDOM)
		return error;
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, &makes_none);
}
