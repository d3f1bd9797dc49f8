// SPDX-License-Identifier: GPL-2.0-only
/*
 * Upstreams that nobody uses, in the order in which they were used last: those that the gate can
 * end at once, and those that the kernel holds for a client.
 */
#include "gate.h"

struct line {
	struct upstream *oldest, *youngest;
};

static struct line lines[2];

static struct line *line_of(enum upstream_state state)
{
	return &lines[state == UPSTREAM_HELD];
}

void unused_put(struct upstream *upstream)
{
	struct line *line = line_of(upstream->state);

	upstream->older = line->youngest;
	upstream->younger = NULL;
	*(line->youngest ? &line->youngest->younger : &line->oldest) = upstream;
	line->youngest = upstream;
}

void unused_out(struct upstream *upstream)
{
	struct line *line = line_of(upstream->state);

	*(upstream->older ? &upstream->older->younger : &line->oldest) = upstream->younger;
	*(upstream->younger ? &upstream->younger->older : &line->youngest) = upstream->older;
}

struct upstream *unused_oldest(enum upstream_state state)
{
	return line_of(state)->oldest;
}
