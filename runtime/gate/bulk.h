/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Many bytes from one socket to another by splice(2), through a pipe: the kernel hands pages on,
 * and nothing is copied. Pipes are kept for whoever needs one next.
 */
#ifndef KMESH_GATE_BULK_H
#define KMESH_GATE_BULK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BULK_LEAST 262144 /* bytes to come; for fewer it does not pay */
/* Where nobody knows what is to come: so many reads of so much, one after the other. */
#define BULK_STREAK 4
#define BULK_READ   16384

struct bulk {
	int pipe[2];
	uint32_t held; /* bytes that have come, and are not gone */
	bool open;
};

extern uint64_t bulk_moved; /* bytes, in all */

/* False: there is no pipe to be had. */
bool bulk_begin(struct bulk *bulk);
void bulk_end(struct bulk *bulk);
/* As read(2): bytes that have come, at most so many; 0 at the end; -1 and errno. */
ssize_t bulk_fill(struct bulk *bulk, int from, uint64_t most);
/* As write(2), of what is held: bytes that have gone; -1 and errno. */
ssize_t bulk_drain(struct bulk *bulk, int to);

#endif
