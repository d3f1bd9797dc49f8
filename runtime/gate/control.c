// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the gate is told, over a Unix socket of packets: one command a packet, one answer.
 *
 *	space COOKIE	with a descriptor of the network namespace: listen in it; "ok PORT"
 *	drop COOKIE	no new connections there; "ok"
 *	waypoint unix:PATH	where the node's waypoint listens; without PATH there is none; "ok"
 *	access-log N	one in N requests is for the access log (accesslog.c), 0: none; "ok"
 *	status		"ok" and what there is, as words
 *	ejected		"ok" and who outlier detection has out, each a word (govern.c)
 *	hand-over MAPS heads	everything goes to who asks (handover.c); MAPS: whose maps it has;
 *		heads: it takes the starts of heads too, which versions before did not
 *	succeed		the gate beside which this one was started hands over to it; "ok"
 *	stop		"ok", and the end
 */
#define _GNU_SOURCE
#include "gate.h"
#include "bulk.h"
#include "govern.h"
#include "handover.h"
#include "waypoint.h"
#include "stat.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define COMMAND 256
#define ANSWER	4096

struct caller {
	struct watch watch;
};

static struct watch listener = {.fd = -1};
static char listens_at[108];

void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("gate: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

static void answer(int fd, const char *format, ...)
{
	char text[ANSWER];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (send(fd, text, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		say("nobody hears \"%s\"", text);
}

static void add_space(int fd, uint64_t cookie, int netns)
{
	struct space *space = space_find(cookie);
	const char *error = "a namespace's descriptor must come with it";

	if (netns >= 0 && cookie && !space)
		space = space_add(cookie, netns, &error);
	else if (netns >= 0)
		close(netns);
	if (space)
		answer(fd, "ok %u", space->port);
	else
		answer(fd, "error %s", error);
}

static void drop_space(int fd, uint64_t cookie)
{
	struct space *space = cookie ? space_find(cookie) : NULL;

	if (space)
		space_drop(space);
	answer(fd, "ok");
}

/* That it may have. */
static uint64_t descriptors(void)
{
	struct rlimit limit = {};

	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

static void status(int fd)
{
	uint32_t busy = 0, idle = 0, count = 0, governed, ejected, pending;

	for (uint32_t id = 0; id < KMESH_UPSTREAMS; id++) {
		if (upstreams[id] && upstream_is_idle(upstreams[id]))
			idle++;
		else if (upstreams[id])
			busy++;
	}
	for (struct space *space = spaces; space; space = space->next)
		count += !space->closing;
	governed = governed_count(&ejected, &pending);
	answer(fd,
	       "ok pid=%d spaces=%u sessions=%u busy=%u idle=%u handing_over=%d "
	       "spliced=%" PRIu64 " descriptors=%" PRIu64 " governed=%u ejected=%u pending=%u "
	       "waiting=%u ended_early=%" PRIu64 " pools_full=%u",
	       getpid(), count, session_count, busy, idle, handing_over, bulk_moved, descriptors(),
	       governed, ejected, pending, scarce_waiting, scarce_ended, maps_pools_refused);
}

static void tell_ejected(int fd)
{
	char text[ANSWER - 8];

	governed_tell(text, sizeof(text));
	answer(fd, "ok%s", text);
}

static void set_waypoint(int fd, const char *path)
{
	if (waypoint_set(path))
		answer(fd, "ok");
	else
		answer(fd, "error the path is too long for a Unix socket");
}

static void succeed(int fd)
{
	const char *error = handover_succeed();

	if (error)
		answer(fd, "error %s", error);
	else
		answer(fd, "ok");
}

static void obey(struct caller *caller, char *command, int descriptor)
{
	static const char waypoint[] = "waypoint unix:";
	static const char log_command[] = "access-log ";
	int fd = caller->watch.fd;
	uint64_t cookie = 0;
	char takes[8] = "";
	uint32_t maps;

	if (sscanf(command, "space %" SCNu64, &cookie) == 1) {
		add_space(fd, cookie, descriptor);
		return;
	}
	if (descriptor >= 0)
		close(descriptor);
	if (sscanf(command, "drop %" SCNu64, &cookie) == 1) {
		drop_space(fd, cookie);
	} else if (!strncmp(command, waypoint, sizeof(waypoint) - 1)) {
		set_waypoint(fd, command + sizeof(waypoint) - 1);
	} else if (!strncmp(command, log_command, sizeof(log_command) - 1)) {
		answer(fd, log_set(command + sizeof(log_command) - 1) ? "ok" : "error no number");
	} else if (!strcmp(command, "status")) {
		status(fd);
	} else if (!strcmp(command, "ejected")) {
		tell_ejected(fd);
	} else if (sscanf(command, "hand-over %u %7s", &maps, takes) >= 1 && !handing_over) {
		loop_release(&caller->watch);
		control_stop_listening();
		handover_begin(fd, maps == maps_identity(), !strcmp(takes, "heads"));
		loop_free_later(caller);
	} else if (!strcmp(command, "succeed")) {
		succeed(fd);
	} else if (!strcmp(command, "stop")) {
		answer(fd, "ok");
		loop_remove(&caller->watch);
		loop_free_later(caller);
		loop_stop();
	} else {
		answer(fd, "error unknown command");
	}
}

static void hear(struct watch *watch, uint32_t events)
{
	struct caller *caller = (void *)watch;
	char command[COMMAND], room[CMSG_SPACE(sizeof(int))];
	struct iovec part = {.iov_base = command, .iov_len = sizeof(command) - 1};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = room,
				 .msg_controllen = sizeof(room)};
	struct cmsghdr *extra;
	int descriptor = -1;
	ssize_t got;

	(void)events;
	got = recvmsg(watch->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		loop_remove(watch);
		loop_free_later(caller);
		return;
	}
	command[got] = 0;
	extra = CMSG_FIRSTHDR(&message);
	if (extra && extra->cmsg_type == SCM_RIGHTS)
		memcpy(&descriptor, CMSG_DATA(extra), sizeof(descriptor));
	obey(caller, command, descriptor);
}

static void greet(struct watch *watch, uint32_t events)
{
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct caller *caller;

	(void)events;
	if (fd < 0)
		return;
	caller = calloc(1, sizeof(*caller));
	if (!caller)
		abort();
	caller->watch = (struct watch){.fd = fd, .ready = hear};
	loop_add(&caller->watch, EPOLLIN);
}

static int address_of(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address->sun_path))
		return -1;
	strcpy(address->sun_path, path);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

int control_call(const char *path)
{
	struct sockaddr_un address;
	struct timeval patience = {.tv_sec = 5}; /* who takes no calls does not hold this gate up */
	int fd = address_of(path, &address);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (fd >= 0 && connect(fd, (void *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

int control_listen(const char *path)
{
	struct sockaddr_un address;
	int fd = address_of(path, &address);
	mode_t before = umask(0177);
	int result;

	unlink(path);
	result = fd < 0 || bind(fd, (void *)&address, sizeof(address)) || listen(fd, 64);
	umask(before);
	if (result) {
		say("cannot listen at %s: %s", path, strerror(errno));
		return -1;
	}
	strcpy(listens_at, path);
	listener = (struct watch){.fd = fd, .ready = greet};
	loop_add(&listener, EPOLLIN);
	return 0;
}

/* The next gate will, at the same path. */
void control_stop_listening(void)
{
	if (listener.fd >= 0)
		loop_remove(&listener);
	listens_at[0] = 0;
}

bool control_move(const char *path)
{
	if (strlen(path) >= sizeof(listens_at) || rename(listens_at, path))
		return false;
	strcpy(listens_at, path);
	return true;
}

void control_end(void)
{
	if (listens_at[0])
		unlink(listens_at);
}
