// SPDX-License-Identifier: GPL-2.0-only
/* Slots of connections that have ended: each rests before it is another's. */
#include "gate.h"
#include <stdlib.h>

/* Slots that no program can have in its hands any more when their time has come. */
struct resting {
	struct resting *next;
	uint64_t since;
	uint32_t slot;
};

static struct resting *resting_first, **resting_last = &resting_first;

void slot_rest(uint32_t slot)
{
	struct resting *resting = malloc(sizeof(*resting));

	if (!resting)
		abort();
	*resting = (struct resting){.since = loop_now, .slot = slot};
	*resting_last = resting;
	resting_last = &resting->next;
}

void slots_tick(void)
{
	while (resting_first && loop_now - resting_first->since > GATE_GRACE_SECONDS * 1000) {
		struct resting *resting = resting_first;

		resting_first = resting->next;
		if (!resting_first)
			resting_last = &resting_first;
		maps_free_slot(resting->slot);
		free(resting);
	}
}

bool slots_resting(void)
{
	return resting_first;
}
