/* System calls that Python does not have. Each function wraps one call, the same call for each of many numbers, or one
 * sequence that cannot be taken apart, and returns its result or -errno. No policy here: what is allowed is decided in
 * cnisandbox/boundary. */
#define _GNU_SOURCE
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native.h"

/* Numbers are the same on every architecture from 424 on; headers older than the kernel may lack them. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

static long checked(long result)
{
	return result < 0 ? -errno : result;
}

int native_setns(int fd, int nstype)
{
	return (int)checked(setns(fd, nstype));
}

int native_unshare(int flags)
{
	return (int)checked(unshare(flags));
}

int native_ns_get_userns(int fd)
{
	return (int)checked(ioctl(fd, NS_GET_USERNS));
}

int native_fs_magic(int fd, long *magic)
{
	struct statfs facts;
	int result = (int)checked(fstatfs(fd, &facts));

	if (result == 0)
		*magic = (long)facts.f_type;
	return result;
}

int native_ns_get_nstype(int fd)
{
	return (int)checked(ioctl(fd, NS_GET_NSTYPE));
}

int native_prctl(int option, uint64_t argument)
{
	return (int)checked(prctl(option, (unsigned long)argument, 0, 0, 0));
}

int native_parent_death_signal(void)
{
	int number = 0;

	return prctl(PR_GET_PDEATHSIG, &number, 0, 0, 0) < 0 ? -errno : number;
}

/* The command line begins with the program's name; nothing is written where anything else than `shown` stands. */
int native_set_title(const char *shown, const char *wanted, size_t size)
{
	if (memcmp(program_invocation_name, shown, size) != 0)
		return -EFAULT;
	memcpy(program_invocation_name, wanted, size);
	return 0;
}

int native_clear_ambient(void)
{
	return (int)checked(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

int native_set_securebits(unsigned long bits)
{
	return (int)checked(prctl(PR_SET_SECUREBITS, bits, 0, 0, 0));
}

/* The kernel drops one capability at a time, and says EINVAL to the first that it does not know. */
int native_empty_bounding_set(void)
{
	unsigned long capability;

	for (capability = 0; capability < 64; capability++)
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return errno == EINVAL && capability > 0 ? 0 : -errno;
	return 0;
}

/* The permitted and the effective set keep what is in `held`, the inheritable set what is in `inheritable`. */
int native_cut_capabilities(uint64_t held, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];
	int word;

	if (syscall(SYS_capget, &header, sets) < 0)
		return -errno;
	for (word = 0; word < 2; word++) {
		sets[word].effective &= (uint32_t)(held >> 32 * word);
		sets[word].permitted &= (uint32_t)(held >> 32 * word);
		sets[word].inheritable &= (uint32_t)(inheritable >> 32 * word);
	}
	return (int)checked(syscall(SYS_capset, &header, sets));
}

int native_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
	return (int)checked(syscall(SYS_close_range, first, last, flags));
}

/* Ranges: address and size, address and size, and so on. What it does not work for is left out. */
void native_madvise(const uint64_t *ranges, size_t count, int advice)
{
	for (; count; count--, ranges += 2)
		madvise((void *)(uintptr_t)ranges[0], ranges[1], advice);
}

/* A file, for as long as the process lives; all of it is fetched, so that no page of it costs a fault. */
const char *native_map_file(int fd, size_t size)
{
	void *content = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);

	return content == MAP_FAILED ? NULL : content;
}

/* Which descriptors below `end` are open: their numbers to `fds`, and how many as the result. */
int native_open_descriptors(int *fds, int end)
{
	int fd, count = 0;

	for (fd = 0; fd < end; fd++)
		if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
			fds[count++] = fd;
	return count;
}

/* The kernel's infinity is -1 here, as it is in Python. */
int native_hard_limits(const int *kinds, size_t count, int64_t *values)
{
	for (size_t i = 0; i < count; i++) {
		struct rlimit limit = { 0, 0 };

		if (getrlimit(kinds[i], &limit) != 0)
			return -errno;
		values[i] = (int64_t)limit.rlim_max;
	}
	return 0;
}

int native_set_limit(int kind, int64_t value)
{
	const struct rlimit limit = { (rlim_t)value, (rlim_t)value };

	return (int)checked(setrlimit(kind, &limit));
}

int native_getcpu(void)
{
	return (int)checked(sched_getcpu());
}

int native_pidfd_open(int pid)
{
	return (int)checked(syscall(SYS_pidfd_open, pid, 0));
}

int native_pidfd_send_signal(int pidfd, int signal_number)
{
	return (int)checked(syscall(SYS_pidfd_send_signal, pidfd, signal_number, NULL, 0));
}

int native_pivot_root(const char *new_root, const char *put_old)
{
	return (int)checked(syscall(SYS_pivot_root, new_root, put_old));
}

int native_umount2(const char *target, int flags)
{
	return (int)checked(syscall(SYS_umount2, target, flags));
}

int native_open_tree(int dirfd, const char *path, unsigned int flags)
{
	return (int)checked(syscall(SYS_open_tree, dirfd, path, flags));
}

int native_move_mount(int from_dirfd, const char *from_path, int to_dirfd, const char *to_path, unsigned int flags)
{
	return (int)checked(syscall(SYS_move_mount, from_dirfd, from_path, to_dirfd, to_path, flags));
}

int native_fsopen(const char *fsname, unsigned int flags)
{
	return (int)checked(syscall(SYS_fsopen, fsname, flags));
}

int native_fsconfig_string(int fd, const char *key, const char *value)
{
	return (int)checked(syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, value, 0));
}

int native_fsconfig_create(int fd)
{
	return (int)checked(syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
}

int native_fsmount(int fd, unsigned int flags, unsigned int attributes)
{
	return (int)checked(syscall(SYS_fsmount, fd, flags, attributes));
}

int native_mount_setattr(int dirfd, const char *path, unsigned int flags, uint64_t attr_set, uint64_t attr_clr,
			 uint64_t propagation, uint64_t userns_fd)
{
	struct mount_attr attr = {
		.attr_set = attr_set, .attr_clr = attr_clr, .propagation = propagation, .userns_fd = userns_fd,
	};
	return (int)checked(syscall(SYS_mount_setattr, dirfd, path, flags, &attr, sizeof attr));
}

int native_landlock_abi(void)
{
	return (int)checked(syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */));
}

int native_landlock_create_ruleset(uint64_t fs, uint64_t net, uint64_t scoped, size_t size)
{
	struct { uint64_t handled_access_fs, handled_access_net, scoped; } attr = { fs, net, scoped };
	return (int)checked(syscall(SYS_landlock_create_ruleset, &attr, size, 0));
}

int native_landlock_allow_path(int ruleset_fd, uint64_t allowed, int parent_fd)
{
	struct { uint64_t allowed_access; int32_t parent_fd; } __attribute__((packed)) attr = { allowed, parent_fd };
	return (int)checked(syscall(SYS_landlock_add_rule, ruleset_fd, 1 /* PATH_BENEATH */, &attr, 0));
}

int native_landlock_restrict_self(int ruleset_fd)
{
	return (int)checked(syscall(SYS_landlock_restrict_self, ruleset_fd, 0));
}

int native_seccomp_load(const void *program, unsigned short instructions, unsigned int flags)
{
	struct { unsigned short len; const void *filter; } fprog = { instructions, program };
	return (int)checked(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &fprog));
}

int native_seccomp_action_available(uint32_t action)
{
	return (int)checked(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
}

static int wait_for_end_of_file(void *argument)
{
	const int *pipe_fds = argument;
	char byte;

	syscall(SYS_close, pipe_fds[1]);
	syscall(SYS_read, pipe_fds[0], &byte, 1);
	syscall(SYS_exit, 0);
	return 0;
}

static int write_map(int pid, const char *file, unsigned int inside, unsigned int outside)
{
	char path[64], line[64];
	int fd, length, result;

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	length = snprintf(line, sizeof line, "%u %u 1\n", inside, outside);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	result = write(fd, line, (size_t)length) == length ? 0 : -errno;
	close(fd);
	return result;
}

/* One user namespace that maps id `inside` to `outside`, for MOUNT_ATTR_IDMAP. A user namespace is born only with a
 * process, so a child that shares our memory (no page tables are copied) lives just long enough to be asked for it. Its
 * descriptors are copies: when we are killed, nobody holds the pipe's end that it waits for, nor the runtime's pipes. */
int native_userns_for_idmap(unsigned int inside_uid, unsigned int outside_uid, unsigned int inside_gid,
			    unsigned int outside_gid)
{
	static char stack[16384] __attribute__((aligned(16)));
	char path[64];
	int pipe_fds[2], pid, result;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	pid = clone(wait_for_end_of_file, stack + sizeof stack, CLONE_NEWUSER | CLONE_VM | SIGCHLD, pipe_fds);
	if (pid < 0) {
		result = -errno;
	} else {
		result = write_map(pid, "uid_map", inside_uid, outside_uid);
		if (result == 0)
			result = write_map(pid, "gid_map", inside_gid, outside_gid);
		if (result == 0) {
			snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
			result = open(path, O_RDONLY | O_CLOEXEC);
			if (result < 0)
				result = -errno;
		}
	}
	close(pipe_fds[1]);
	if (pid > 0)
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	close(pipe_fds[0]);
	return result;
}

/* The interpreter has pools for what takes up to 512 bytes, one size in each (Objects/obmalloc.c). In one that nobody has
 * used yet blocks come one after the other: a whole pool of those tells that none of that size has gaps left. */
static void fill_gaps_of_objects(size_t size)
{
	enum { POOL = 16 << 10, HEAD = 48, MOST = 256 << 10 };
	const size_t whole = (POOL - HEAD) / size;
	char *first = NULL;
	size_t count = 0;

	for (size_t tries = MOST / size; tries && count < whole; tries--) {
		char *block = PyObject_Malloc(size);

		if (!block)
			break;
		if (block != first + count * size) {
			first = block;
			count = 0;
		}
		count++;
	}
	while (count)
		PyObject_Free(first + --count * size);
}

/* See cnisandbox/boundary/pages.py. What is given back at the end lies at the top of the heap, above all gaps. */
void native_fill_gaps(void)
{
	const size_t largest = 64 << 10, small = 1 << 10;
	PyGILState_STATE state = PyGILState_Ensure();
	char *volatile piece;
	char *top;

	for (size_t size = 16; size <= 512; size += 16)
		fill_gaps_of_objects(size);
	PyGILState_Release(state);
	top = malloc(2 * largest - 4096); /* less than what is mapped by itself */
	if (!top)
		return;
	for (size_t size = largest; size >= 16; size -= size > small ? 512 : 16) {
		do
			piece = malloc(size);
		while (piece && (uintptr_t)piece < (uintptr_t)top);
		free(piece);
	}
	free(top);
}
