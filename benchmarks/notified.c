/* notified PROGRAM [ARGUMENT ...]: run a program, and answer what our runner would be asked with "go on".
 *
 * The floor of the runner: the same questions, asked and answered the same way, but nothing is looked at and nobody is
 * confined. What it takes more than the program by itself is what the kernel takes for being asked. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native.h"

#define NUMBER offsetof(struct seccomp_data, nr)
#define ASK(name) \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)

/* The calls that foreign_filter() of cnisandbox/boundary/seccomp.py asks about, whatever their arguments are. */
static const struct sock_filter program[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, NUMBER),
	ASK(openat),
#ifdef SYS_open
	ASK(open),
#endif
	ASK(setns),
	ASK(socket),
	ASK(bind),
	ASK(sendto),
	ASK(sendmsg),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static int failed(const char *what)
{
	perror(what);
	return 125;
}

/* Tells where the filter's questions are to be read, waits until somebody does, and becomes the program. */
static int be_asked(int tell_fd, int wait_fd, char **arguments)
{
	int listener = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

	listener = listener < 0 ? listener : native_seccomp_listen(program, sizeof program / sizeof *program);
	if (listener < 0 || write(tell_fd, &listener, sizeof listener) != sizeof listener)
		return failed("notified: seccomp");
	if (read(wait_fd, &listener, 1) != 0)
		return failed("notified: read");
	execv(arguments[0], arguments);
	return failed(arguments[0]);
}

static int answer(int listener)
{
	static const int no_others[] = { -1 };
	struct native_notification call;

	if (native_notify_wake_on_this_cpu(listener) < 0)
		return failed("notified: SECCOMP_IOCTL_NOTIF_SET_FLAGS");
	/* Without prefixes no path is of interest, so opening files is answered in there. */
	while (native_notify_next(listener, no_others, "", &call) == 1)
		native_notify_answer(listener, call.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
	return 0;
}

int main(int count, char **arguments)
{
	int told[2], begun[2], number, listener, status;
	pid_t child;

	if (count < 2 || pipe(told) < 0 || pipe(begun) < 0)
		return failed("notified");
	child = fork();
	if (child < 0)
		return failed("notified: fork");
	if (child == 0) {
		close(begun[1]);
		_exit(be_asked(told[1], begun[0], arguments + 1));
	}
	close(told[1]);
	if (read(told[0], &number, sizeof number) != sizeof number)
		return 125;
	listener = native_pidfd_getfd((int)syscall(SYS_pidfd_open, child, 0), number);
	close(begun[1]);
	if (listener < 0 || answer(listener) != 0)
		return 125;
	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
