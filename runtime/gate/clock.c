// SPDX-License-Identifier: GPL-2.0-only
/* The time of day as responses tell it, for the kernel too. */
#include "gate.h"
#include "maps.h"
#include <kmesh/gate.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#define SECOND_NS 1000000000ull
#define LATE_NS	  SECOND_NS /* a tick may be: until then the second before is told */

static struct kmesh_clock *clock_shared;

int clock_open(void)
{
	clock_shared = gate_map_share(&http_clock, sizeof(*clock_shared));
	if (!clock_shared)
		say("cannot map the clock: %s", strerror(errno));
	return clock_shared ? 0 : -1;
}

/* RFC 9110, 5.6.7; made once a second. */
const char *clock_date(void)
{
	static char text[40];
	static time_t made;
	time_t now = time(NULL);
	struct tm parts;

	if (now != made && gmtime_r(&now, &parts)) {
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
		made = now;
	}
	return text;
}

static uint64_t nanoseconds(clockid_t which)
{
	struct timespec now;

	clock_gettime(which, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

uint64_t clock_ns(void)
{
	return nanoseconds(CLOCK_MONOTONIC);
}

/* Programs read what is current meanwhile: the other one is written, and theirs a second later. */
void clock_tick(void)
{
	static time_t told;
	uint64_t now = nanoseconds(CLOCK_REALTIME), left = SECOND_NS - now % SECOND_NS;
	uint32_t next = !clock_shared->current;
	const char *text = clock_date();

	if (told == (time_t)(now / SECOND_NS) || strlen(text) != KMESH_DATE)
		return;
	told = now / SECOND_NS;
	memcpy(clock_shared->dates + next * KMESH_DATE_ROOM, text, KMESH_DATE);
	__atomic_store_n(&clock_shared->current, next, __ATOMIC_RELEASE);
	__atomic_store_n(&clock_shared->until, clock_ns() + left + LATE_NS, __ATOMIC_RELEASE);
}
