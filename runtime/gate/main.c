// SPDX-License-Identifier: GPL-2.0-only
/*
 * kmesh-gate PINS SOCKET [BESIDE]: see gate.h. A gate that runs at the socket hands over to this
 * one; with BESIDE, where this one listens till then, not before it is told (handover_succeed()).
 */
#include "gate.h"
#include "govern.h"
#include "handover.h"
#include "stat.h"
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static void on_signal(int number)
{
	(void)number;
	loop_stop();
}

static void tick(void)
{
	static uint32_t ticks;

	clock_tick();
	upstreams_tick();
	sessions_tick();
	spaces_tick();
	governed_tick();
	scarce_tick();
	handover_tick();
	log_flush();
	if (!(++ticks % 60)) {
		routes_tick();
		if (!handing_over)
			maps_forget_unaccepted();
	}
}

static void settle(void)
{
	breakers_settle();
	scarce_settle();
}

/* For every slot a client's connection and an upstream, three for each namespace,
 * and some for all the rest. */
#define DESCRIPTORS (KMESH_SLOTS + KMESH_UPSTREAMS + 65536)

/* Without CAP_SYS_RESOURCE the hard limit stays what it is. */
static void have_many_descriptors(void)
{
	struct rlimit limit, more = {.rlim_cur = DESCRIPTORS, .rlim_max = DESCRIPTORS};

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	if (limit.rlim_max < DESCRIPTORS && !setrlimit(RLIMIT_NOFILE, &more))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < DESCRIPTORS)
		say("%llu descriptors are all that it may have (RLIMIT_NOFILE): enough for about "
		    "%llu connections, and not for %u",
		    (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_cur / 2,
		    KMESH_SLOTS);
}

static bool start_anew(void)
{
	if (!alone_end_others())
		return false;
	maps_reset();
	return true;
}

int main(int count, char **arguments)
{
	const char *listens_at;
	bool is_first;

	if (count != 3 && count != 4) {
		fprintf(stderr, "usage: kmesh-gate PINS SOCKET [BESIDE]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	have_many_descriptors();
	loop_init();
	log_path(arguments[2]);
	listens_at = arguments[count - 1];
	if (count == 4)
		handover_wait(arguments[2]);
	if (maps_open(arguments[1]) || alone_open(arguments[1]) || enrolled_open(arguments[1]) ||
	    stat_open() || clock_open() || underway_open(arguments[1]))
		return 1;
	is_first = !settings_shared->prepared;
	if (is_first && !start_anew())
		return 1;
	if (!handover_take(listens_at) && !is_first) {
		say("the gate before this one has ended without handing over: what it counted and "
		    "whom it had ejected is forgotten");
		if (!start_anew())
			return 1;
	}
	if (control_listen(listens_at))
		return 1;
	puts("ready");
	fflush(stdout);
	loop_run(tick, settle);
	log_flush();
	control_end();
	return 0;
}
