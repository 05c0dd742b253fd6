/* What `cnisandbox install` and `wrap` put into a plugin directory: hands the call to the zygote (cnisandbox/zygote), or starts the
 * interpreter itself when there is none that fits.
 *
 *   launcher                                   zygote's child
 *     connect            ──────────────────▶   accept; who is it?
 *                        ◀── hello ─────────   build id, nonce
 *     request            ──────────────────▶   nonce, environment; number of a pipe's end; the kernel adds credentials
 *                                              fetches 0, 1, 2 and the pipe's end by their numbers, pidfd_getfd(2)
 *                        ◀── 'T' ───────────   taken: from here on the call is served there, and only there
 *     exit               ◀── pipe: status ──   from the engine, when it is done
 *                        ◀── wait status ───   from the zygote, when the engine has ended without saying so
 *
 * Until 'T' came nothing has happened, and the launcher may turn to the interpreter; shutdown() makes sure that 'T' does
 * not come after that. No descriptor is sent: one in a message would stay open as long as a slot that hangs has not read
 * it, and a runtime that reads to the end of its pipe would wait for that. A connection that ends tells the zygote to end
 * the engine, so no signal has to be passed on.
 *
 * Privilege: the runtime's. Of what a zygote says, nothing is used but a number of fixed size; the time of its socket's
 * file says no more than how long to wait. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROTOCOL "cnisandbox zygote 2"
#define BUILD_ID_BYTES 32
#define NONCE_BYTES 16
/* LIMIT: of the environment; the kernel's own limit is higher, and what is longer is served without a zygote. */
#define MAX_ENVIRONMENT (128 << 10)
/* LIMIT: seconds that a zygote which does not answer may cost, and one that answers others first. In a burst of calls an
 * interpreter for each who waits would take the time from those who make the next slots. */
#define PATIENCE_S 1
#define PATIENCE_IN_A_QUEUE_S 10
/* LIMIT: milliseconds for the zygote to say how an engine has ended. */
#define OBITUARY_MS 2000

/* `cnisandbox install` and `wrap` write over this, in a copy of the file; it finds it by `mark` (cnisandbox/cli/launcher.py). */
static const volatile struct {
	char mark[32];
	char plugin[64];
	unsigned char build_id[BUILD_ID_BYTES];
	char socket[104];
	char interpreter[512];
	char script[4096];
	char subject[1024]; /* what is said before the environment: of a wrapped plugin, which it is and how it is run */
} config __attribute__((used, section(".data.cnisandbox"))) = { .mark = "cnisandbox launcher settings:" };

struct hello {
	char protocol[20];
	unsigned char build_id[BUILD_ID_BYTES];
	unsigned char nonce[NONCE_BYTES];
} __attribute__((packed));

struct request {
	char protocol[20];
	unsigned char nonce[NONCE_BYTES];
	int32_t status_fd;
	uint32_t environment_bytes;
} __attribute__((packed));

#define ERROR_OBJECT(code, msg, details) \
	"{\"cniVersion\": \"1.1.0\", \"code\": " code ", \"msg\": \"" msg "\", \"details\": \"" details "\"}\n"

static const char LOST[] = ERROR_OBJECT("104", "serve call: the zygote has ended, and the plugin with it",
					"systemctl status cnisandbox-zygote.service may say why");
static const char NO_INTERPRETER[] = ERROR_OBJECT("5", "start the interpreter: it has gone, or cannot be executed",
						  "`cnisandbox install` or `wrap` again, with the one that is there now");
static const char NO_NETCONF[] = ERROR_OBJECT("5", "read netconf: standard input is a directory",
					      "write the netconf to standard input");

static void fail(const char *text)
{
	_exit(write(1, text, strlen(text)) < 0 ? 127 : 1);
}

static void start_interpreter(int argc, char **argv, char **envp)
{
	char *arguments[argc + 5];
	struct stat facts;
	int count = 0;

	/* The interpreter ends with a word of its own about it, before it runs anything of ours. */
	if (fstat(0, &facts) == 0 && S_ISDIR(facts.st_mode))
		fail(NO_NETCONF);
	/* Not argv[0], in the neighbourhood of which the interpreter would look for its library, or in PATH. */
	arguments[count++] = (char *)config.interpreter;
	arguments[count++] = (char *)"-IS";
	arguments[count++] = (char *)"-c";
	arguments[count++] = (char *)config.script;
	for (int index = 1; index < argc; index++)
		arguments[count++] = argv[index];
	arguments[count] = NULL;
	execve((const char *)config.interpreter, arguments, envp);
	fail(NO_INTERPRETER);
}

static int begins_with(const char *text, const char *beginning)
{
	return strncmp(text, beginning, strlen(beginning)) == 0;
}

/* Whether a path of the call's leads to what we have open: /proc/self/fd/N, /dev/fd/N. A slot has something else there. */
static int names_descriptor(const char *variable)
{
	return begins_with(variable, "CNI") && strstr(variable, "/fd/");
}

/* A person who starts a plugin by hand, and whoever asks for it, gets the interpreter. */
static int wants_zygote(int argc, char **envp)
{
	int is_call = 0;

	for (; *envp; envp++) {
		if (begins_with(*envp, "CNISANDBOX_COLD=") || names_descriptor(*envp))
			return 0;
		if (begins_with(*envp, "CNI_COMMAND=") && (*envp)[sizeof "CNI_COMMAND=" - 1])
			is_call = 1;
	}
	return is_call && argc == 1;
}

/* The subject, if there is one, and the strings of the environment, each with its terminating zero; 0 when they do not
 * fit. */
static uint32_t flatten(char **envp, char *buffer)
{
	uint32_t used = 0;

	if (config.subject[0]) {
		used = (uint32_t)strlen((const char *)config.subject) + 1;
		memcpy(buffer, (const char *)config.subject, used);
	}
	for (; *envp; envp++) {
		size_t length = strlen(*envp) + 1;
		if (length > MAX_ENVIRONMENT - used)
			return 0;
		memcpy(buffer + used, *envp, length);
		used += (uint32_t)length;
	}
	return used;
}

static int connect_to_zygote(void)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (!config.socket[0])
		return -1;
	memcpy(address.sun_path, (const char *)config.socket, sizeof config.socket);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
	    connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

/* When the zygote has last heard that a slot took a call: it says so with the time of the socket's file. */
static struct timespec last_taken(void)
{
	struct stat status = { 0 };

	stat((const char *)config.socket, &status);
	return status.st_mtim;
}

/* Wait for a slot, as long as those before us find one. */
static int receive_hello(int fd, struct hello *hello)
{
	struct timespec before, now = last_taken();
	ssize_t count;

	for (int waited = 0; waited < PATIENCE_IN_A_QUEUE_S; waited += PATIENCE_S) {
		before = now;
		count = recv(fd, hello, sizeof *hello, 0);
		if (count >= 0)
			return count == sizeof *hello;
		if (errno != EAGAIN)
			return 0;
		now = last_taken();
		if (now.tv_sec == before.tv_sec && now.tv_nsec == before.tv_nsec)
			return 0;
	}
	return 0;
}

static int send_request(int fd, const struct hello *hello, char **envp, int status_fd)
{
	static char environment[MAX_ENVIRONMENT];
	struct request request = { .protocol = PROTOCOL, .status_fd = status_fd };
	struct iovec parts[] = { { &request, sizeof request }, { environment, 0 } };
	const struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	memcpy(request.nonce, hello->nonce, sizeof request.nonce);
	request.environment_bytes = flatten(envp, environment);
	parts[1].iov_len = request.environment_bytes;
	return request.environment_bytes > 0 && sendmsg(fd, &message, MSG_NOSIGNAL) > 0;
}

/* Whether the call was taken. When it was not, it never will be. */
static int is_taken(int fd)
{
	char word = 0;

	if (recv(fd, &word, 1, 0) == 1)
		return word == 'T';
	/* Too late: close this direction, and look once more for what has come before that. */
	shutdown(fd, SHUT_RD);
	return recv(fd, &word, 1, MSG_DONTWAIT) == 1 && word == 'T';
}

static void end_as(int wait_status)
{
	if (WIFSIGNALED(wait_status)) {
		signal(WTERMSIG(wait_status), SIG_DFL);
		kill(getpid(), WTERMSIG(wait_status));
	}
	_exit(WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 1);
}

/* Wait for the end of a call that was taken. The zygote is listened to all the time: what a plugin at level root has left
 * behind in the background keeps the pipe open. */
static void follow(int fd, int status_fd)
{
	struct pollfd waited[] = { { .fd = status_fd, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
	unsigned char status;
	int32_t wait_status;
	int ready;

	while (waited[0].fd >= 0 || waited[1].fd >= 0) {
		ready = poll(waited, 2, waited[0].fd >= 0 ? -1 : OBITUARY_MS);
		if (ready == 0)
			break;
		if (ready < 0)
			continue;
		if (waited[0].revents) {
			if (read(status_fd, &status, 1) == 1)
				_exit(status);
			waited[0].fd = -1;
		}
		if (waited[1].revents) {
			if (recv(fd, &wait_status, sizeof wait_status, MSG_DONTWAIT) == sizeof wait_status)
				end_as(wait_status);
			waited[1].fd = -1; /* it has ended, and the engine goes on */
		}
	}
	fail(LOST);
}

/* Returns when the zygote is none that fits, or does not take the call. */
static void try_zygote(char **envp)
{
	struct hello hello;
	int ends[2], fd = connect_to_zygote();

	if (fd < 0)
		return;
	if (receive_hello(fd, &hello) &&
	    memcmp(hello.protocol, PROTOCOL, sizeof PROTOCOL) == 0 &&
	    memcmp(hello.build_id, (const void *)config.build_id, BUILD_ID_BYTES) == 0 && pipe2(ends, O_CLOEXEC) == 0) {
		if (send_request(fd, &hello, envp, ends[1]) && is_taken(fd)) {
			close(ends[1]);
			follow(fd, ends[0]);
		}
		close(ends[0]);
		close(ends[1]);
	}
	close(fd);
}

/* What is closed of the three is /dev/null, as in the entry (cnisandbox/boundary/entry.py). */
static void fill_standard_descriptors(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv, char **envp)
{
	fill_standard_descriptors();
	if (wants_zygote(argc, envp))
		try_zygote(envp);
	start_interpreter(argc, argv, envp);
}
