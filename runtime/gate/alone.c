// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who else has these maps. A gate may live on for hours after it has handed over, as long as its
 * last connection, with slots and numbers of its own in the maps. When the one that knew of it has
 * died, nobody can tell them from others': so who starts anew ends it first.
 *
 * Each gate holds a lock on the directory where the maps are pinned, which the kernel lets go when
 * the gate's process ends, however it does, and which tells the process's id.
 */
#include "gate.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST	 64
#define DEATH_MS 10000

static int directory = -1;

/* The directory must not be opened again: closing that one would let go of the lock. */
int alone_open(const char *pins)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

	directory = open(pins, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory >= 0 && !fcntl(directory, F_SETLK, &lock))
		return 0;
	say("cannot lock %s: %s", pins, strerror(errno));
	return -1;
}

/* 0: nobody; -1: somebody of whom no more is known here, as of another process namespace. */
static pid_t find_other(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(directory, F_GETLK, &lock))
		return -1;
	if (lock.l_type == F_UNLCK)
		return 0;
	return lock.l_pid > 0 ? lock.l_pid : -1;
}

static bool has_ended(int process)
{
	struct pollfd end = {.fd = process, .events = POLLIN};

	return poll(&end, 1, DEATH_MS) == 1;
}

/* Asked again, as the id may have become another process's before it was opened. */
static bool end(pid_t pid)
{
	int process = syscall(SYS_pidfd_open, pid, 0);
	bool ended;

	if (process < 0)
		return errno == ESRCH;
	ended = find_other() != pid ||
		(!syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0) && has_ended(process));
	close(process);
	return ended;
}

bool alone_end_others(void)
{
	for (int i = 0; i < MOST; i++) {
		pid_t pid = find_other();

		if (!pid)
			return true;
		if (pid < 0) {
			say("another gate uses these maps that cannot be seen from here: end it");
			return false;
		}
		say("the gate of process %d has these maps and does not hand over: it is ended, "
		    "and with it the connections that it still had",
		    pid);
		if (!end(pid)) {
			say("process %d cannot be ended: %s", pid, strerror(errno));
			return false;
		}
	}
	return false;
}
