// SPDX-License-Identifier: GPL-2.0-only
/* Waiting for descriptors, all of them at once. */
#include "gate.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define ROUND	256
#define TICK_MS 500

uint64_t loop_now;
static int epoll = -1;
static bool stopped;

struct grave {
	struct grave *next;
};

static struct grave *graves;

static void look_at_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	loop_now = now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

void loop_init(void)
{
	epoll = epoll_create1(EPOLL_CLOEXEC);
	look_at_clock();
}

void loop_add(struct watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	watch->events = events;
	epoll_ctl(epoll, EPOLL_CTL_ADD, watch->fd, &event);
}

/* Errors and hang-ups are told without being asked for, again and again: so it is taken out. */
void loop_set(struct watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};
	int change = !events ? EPOLL_CTL_DEL : !watch->events ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (watch->events == events || watch->fd < 0)
		return;
	watch->events = events;
	epoll_ctl(epoll, change, watch->fd, &event);
}

void loop_release(struct watch *watch)
{
	if (watch->fd >= 0)
		epoll_ctl(epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->ready = NULL;
}

void loop_remove(struct watch *watch)
{
	loop_release(watch);
	if (watch->fd >= 0)
		close(watch->fd);
	watch->fd = -1;
}

void loop_free_later(void *memory)
{
	struct grave *grave = memory;

	grave->next = graves;
	graves = grave;
}

static void bury(void)
{
	while (graves) {
		struct grave *grave = graves;

		graves = grave->next;
		free(grave);
	}
}

void loop_stop(void)
{
	stopped = true;
}

static uint64_t later_at;
static void (*later)(void);

void loop_after(uint64_t time, void (*task)(void))
{
	if (later && time > later_at)
		time = later_at;
	later_at = time;
	later = task;
}

static int patience(void)
{
	if (!later)
		return TICK_MS;
	if (later_at <= loop_now)
		return 1;
	return later_at - loop_now < TICK_MS ? later_at - loop_now + 1 : TICK_MS;
}

static void do_later(void)
{
	void (*task)(void) = later;

	if (!task || loop_now <= later_at)
		return;
	later = NULL; /* it may ask for more */
	task();
}

/* The first word of a watch is overwritten when it is freed later: `ready` tells, not `fd`. */
void loop_run(void (*tick)(void), void (*settle)(void))
{
	struct epoll_event events[ROUND];
	uint64_t ticked = loop_now;

	while (!stopped) {
		int count = epoll_wait(epoll, events, ROUND, patience());

		look_at_clock();
		for (int i = 0; i < count; i++) {
			struct watch *watch = events[i].data.ptr;

			if (watch->ready)
				watch->ready(watch, events[i].events);
		}
		if (loop_now - ticked >= TICK_MS) {
			ticked = loop_now;
			tick();
		}
		do_later();
		settle();
		bury();
	}
	bury();
}
