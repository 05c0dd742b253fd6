/* Seccomp user notification: what the monitor needs to answer the system calls of a foreign program. Each function wraps
 * one call, or one loop that tells apart what needs no answer or finds what stands in one; what is allowed is decided in
 * cnisandbox/monitor. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "native.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#define PAGE 4096UL

static long checked(long result)
{
	return result < 0 ? -errno : result;
}

int native_seccomp_listen(const void *program, unsigned short instructions)
{
	struct { unsigned short len; const void *filter; } fprog = { instructions, program };
	/* Without WAIT_KILLABLE a signal, such as the ones by which Go interrupts its threads, would make a call that the
	 * monitor is carrying out return, and be made a second time. */
	unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

	return (int)checked(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &fprog));
}

int native_notify_wake_on_this_cpu(int listener)
{
	return (int)checked(ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, 1 /* SYNC_WAKE_UP */));
}

int native_notify_is_valid(int listener, uint64_t id)
{
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

int native_notify_answer(int listener, uint64_t id, int64_t value, int error, unsigned int flags)
{
	struct seccomp_notif_resp answer = { .id = id, .val = value, .error = -error, .flags = flags };

	return (int)checked(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer));
}

int native_notify_give(int listener, uint64_t id, int fd, unsigned int number, unsigned int fd_flags)
{
	struct seccomp_notif_addfd given = {
		.id = id, .srcfd = (unsigned int)fd, .newfd = number, .newfd_flags = fd_flags,
		.flags = SECCOMP_ADDFD_FLAG_SEND | (number ? SECCOMP_ADDFD_FLAG_SETFD : 0),
	};
	return (int)checked(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &given));
}

long native_read_memory(int pid, uint64_t address, void *buffer, size_t size)
{
	struct iovec here = { buffer, size }, there = { (void *)(uintptr_t)address, size };

	return checked(process_vm_readv(pid, &here, 1, &there, 1, 0));
}

/* The number of bytes before the NUL, or -ENAMETOOLONG. Never reads over a page's end before it has to. */
long native_read_string(int pid, uint64_t address, char *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		size_t piece = PAGE - (address + done) % PAGE;
		long count;
		char *end;

		if (piece > size - done)
			piece = size - done;
		count = native_read_memory(pid, address + done, buffer + done, piece);
		if (count <= 0)
			return count < 0 ? count : -EFAULT;
		end = memchr(buffer + done, 0, (size_t)count);
		if (end)
			return end - buffer;
		done += (size_t)count;
	}
	return -ENAMETOOLONG;
}

/* A call that opens a file is let go on here, at once, when its path does not begin with one of `prefixes` (each ends with
 * NUL, an empty one ends the list). CONTINUE lets the kernel read the path again, and the program may have exchanged it
 * meanwhile: what is opened then is opened with the program's own credentials in the program's own view, as every file
 * would be without us, and nothing is gained by it. */
static int is_of_no_interest(const struct native_notification *call, const char *prefixes)
{
	char path[64] = { 0 };
	uint64_t address;

	if (call->nr == SYS_openat)
		address = call->args[1];
#ifdef SYS_open
	else if (call->nr == SYS_open)
		address = call->args[0];
#endif
	else
		return 0;
	if (native_read_string(call->pid, address, path, sizeof path - 1) == -EFAULT)
		return 1; /* the kernel will find the same */
	for (; *prefixes; prefixes += strlen(prefixes) + 1)
		if (strncmp(path, prefixes, strlen(prefixes)) == 0)
			return 0;
	return 1;
}

/* Wait for a call that needs an answer: 1. 0: one of the `others`, which end with -1, has something to say; that comes
 * first. -EPIPE: nobody is left who could ask. */
int native_notify_next(int listener, const int *others, const char *prefixes, struct native_notification *call)
{
	struct pollfd waiting[4] = { { listener, POLLIN, 0 } };
	struct seccomp_notif notice;
	nfds_t count = 1, index;

	while (count < sizeof waiting / sizeof *waiting && others[count - 1] >= 0) {
		waiting[count] = (struct pollfd){ others[count - 1], POLLIN, 0 };
		count++;
	}
	for (;;) {
		if (poll(waiting, count, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		for (index = 1; index < count; index++)
			if (waiting[index].revents)
				return 0;
		if (!(waiting[0].revents & POLLIN))
			return -EPIPE;
		memset(&notice, 0, sizeof notice);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notice) < 0) {
			if (errno == ENOENT || errno == EINTR)
				continue; /* it has been killed before we could look */
			return -errno;
		}
		call->id = notice.id;
		call->pid = (int)notice.pid;
		call->nr = notice.data.nr;
		memcpy(call->args, notice.data.args, sizeof call->args);
		if (!is_of_no_interest(call, prefixes))
			return 1;
		native_notify_answer(listener, notice.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
	}
}

int native_pidfd_getfd(int pidfd, int fd)
{
	return (int)checked(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

/* Which netlink protocol a socket speaks; -EPROTOTYPE for a socket of another kind. */
int native_netlink_protocol(int fd)
{
	int domain, protocol;
	socklen_t size = sizeof domain;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
		return -errno;
	if (domain != AF_NETLINK)
		return -EPROTOTYPE;
	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 ? -errno : protocol;
}

/* The inode of the netns that a socket belongs to. */
int native_netns_of_socket(int fd, uint64_t *inode)
{
	struct stat facts;
	int netns_fd = ioctl(fd, SIOCGSKNS), result;

	if (netns_fd < 0)
		return -errno;
	result = (int)checked(fstat(netns_fd, &facts));
	close(netns_fd);
	if (result == 0)
		*inode = facts.st_ino;
	return result;
}

/* To the kernel, whose port is 0, whatever the socket is connected to. */
long native_netlink_send(int fd, const char *data, size_t size)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	return checked(sendto(fd, data, size, 0, (struct sockaddr *)&kernel, sizeof kernel));
}

/* Begin and end of the payloads of `count` attributes; 0 and 0 for one that is not there. An answer about a link has
 * sixty of them, a judge reads five, and in Python each takes a microsecond. Nothing is decided or changed here. */
int native_find_attributes(const char *data, size_t start, size_t end, const uint16_t *types, size_t count,
			   uint32_t *places)
{
	memset(places, 0, 2 * count * sizeof *places);
	while (start < end) {
		struct nlattr head;

		if (end - start < sizeof head)
			return -EBADMSG;
		memcpy(&head, data + start, sizeof head);
		if (head.nla_len < sizeof head || head.nla_len > end - start)
			return -EBADMSG;
		for (size_t i = 0; i < count; i++) {
			if (types[i] != (head.nla_type & NLA_TYPE_MASK))
				continue;
			if (places[2 * i])
				return -EBADMSG; /* twice: two readers must not see two messages */
			places[2 * i] = (uint32_t)(start + sizeof head);
			places[2 * i + 1] = (uint32_t)(start + head.nla_len);
		}
		start += NLA_ALIGN(head.nla_len); /* past the end behind the last one */
	}
	return 0;
}

/* Without groups. */
int native_netlink_bind(int fd, unsigned int port)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = port };

	return (int)checked(bind(fd, (struct sockaddr *)&address, sizeof address));
}

/* The effective set becomes `mask`; permitted and inheritable stay as they are. */
int native_set_effective(uint64_t mask)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &header, sets) < 0)
		return -errno;
	sets[0].effective = (uint32_t)mask;
	sets[1].effective = (uint32_t)(mask >> 32);
	return (int)checked(syscall(SYS_capset, &header, sets));
}

/* Raise one capability into the inheritable and the ambient set, so that a program that is executed keeps it. */
int native_keep_over_exec(int capability)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2];

	if (syscall(SYS_capget, &header, sets) < 0)
		return -errno;
	sets[capability / 32].inheritable |= 1U << capability % 32;
	if (syscall(SYS_capset, &header, sets) < 0)
		return -errno;
	return (int)checked(syscall(SYS_prctl, 47 /* PR_CAP_AMBIENT */, 2 /* RAISE */, capability, 0, 0));
}

/* fork(), with a child of a chosen number in the caller's pid namespace: its entry in /proc is what it is for. */
int native_fork_as(int wanted_pid)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size;
	} args;
	int32_t pids[1] = { wanted_pid };

	memset(&args, 0, sizeof args);
	args.exit_signal = SIGCHLD;
	args.set_tid = (uint64_t)(uintptr_t)pids;
	args.set_tid_size = 1;
	return (int)checked(syscall(SYS_clone3, &args, sizeof args));
}
