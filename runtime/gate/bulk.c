// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "bulk.h"
#include <fcntl.h>
#include <unistd.h>

#define KEPT	  16
#define PIPE_SIZE 524288 /* bytes asked for: less than the limit for all (pipe-max-size) */

static int kept[KEPT][2];
static int kept_count;
uint64_t bulk_moved;

bool bulk_begin(struct bulk *bulk)
{
	if (bulk->open)
		return true;
	if (kept_count) {
		kept_count--;
		bulk->pipe[0] = kept[kept_count][0];
		bulk->pipe[1] = kept[kept_count][1];
	} else if (pipe2(bulk->pipe, O_CLOEXEC | O_NONBLOCK)) {
		return false;
	} else {
		fcntl(bulk->pipe[0], F_SETPIPE_SZ, PIPE_SIZE); /* or it stays as it is */
	}
	bulk->held = 0;
	bulk->open = true;
	return true;
}

/* A pipe with somebody's bytes in it is nobody else's. */
void bulk_end(struct bulk *bulk)
{
	if (!bulk->open)
		return;
	bulk->open = false;
	if (!bulk->held && kept_count < KEPT) {
		kept[kept_count][0] = bulk->pipe[0];
		kept[kept_count][1] = bulk->pipe[1];
		kept_count++;
		return;
	}
	bulk->held = 0;
	close(bulk->pipe[0]);
	close(bulk->pipe[1]);
}

ssize_t bulk_fill(struct bulk *bulk, int from, uint64_t most)
{
	ssize_t got = splice(from, NULL, bulk->pipe[1], NULL, most < PIPE_SIZE ? most : PIPE_SIZE,
			     SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

	if (got > 0)
		bulk->held += got;
	return got;
}

ssize_t bulk_drain(struct bulk *bulk, int to)
{
	ssize_t gone = splice(bulk->pipe[0], NULL, to, NULL, bulk->held,
			      SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

	if (gone > 0) {
		bulk->held -= gone;
		bulk_moved += gone;
	}
	return gone;
}
