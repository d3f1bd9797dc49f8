/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is decided of requests that are alike, by who sends them; as runtime/tables/http_rulings.py
 * writes it among the texts of a table. Behind the head stand blocks, states, verdicts and steps.
 *
 * Each condition on the client is a fact, one bit: of the blocks first, then what is asked of its
 * name, which is what the state says in which an automaton is at the end of it.
 */
#ifndef KMESH_GATE_RULING_H
#define KMESH_GATE_RULING_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ruling {
	uint16_t blocks, states, verdicts, steps;
};

struct ruling_block {
	uint8_t address[16]; /* IPv4 mapped into IPv6 */
	uint8_t bits;	     /* that count, from the first on */
	uint8_t family;	     /* 4 or 6 */
	uint8_t pad[6];
};

struct ruling_state {
	uint64_t facts; /* of a name that ends here */
	uint32_t first; /* of its steps */
	uint16_t count;
	uint16_t otherwise;
};

/* Of clients of which all `wanted` facts hold and no `unwanted` one. The first decides. */
struct ruling_verdict {
	uint64_t wanted, unwanted;
	uint32_t allowed;
	uint32_t pad;
};

struct ruling_step {
	uint16_t next;
	uint8_t byte;
	uint8_t pad;
};

/* Whether it has all that its head says. */
bool ruling_is_whole(const struct ruling *ruling, size_t size);
bool ruling_asks_address(const struct ruling *ruling);
bool ruling_asks_name(const struct ruling *ruling);
/*
 * Whether a client may. `address`: where it is; NULL, where that does not matter. `name`: its
 * identity, `length` 0 where it has none.
 */
bool ruling_allows(const struct ruling *ruling, const __be32 *address, const char *name,
		   size_t length);
/* Whether an automaton has ways for all of a name. */
bool ruling_can_read(const char *name, size_t length);

#endif
