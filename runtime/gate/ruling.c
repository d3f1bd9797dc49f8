// SPDX-License-Identifier: GPL-2.0-only
/* Whether a client may, by a ruling: nothing here knows of connections or maps. */
#include "ruling.h"
#include <string.h>

static const struct ruling_block *blocks_of(const struct ruling *ruling)
{
	return (const void *)(ruling + 1);
}

static const struct ruling_state *states_of(const struct ruling *ruling)
{
	return (const void *)(blocks_of(ruling) + ruling->blocks);
}

static const struct ruling_verdict *verdicts_of(const struct ruling *ruling)
{
	return (const void *)(states_of(ruling) + ruling->states);
}

static const struct ruling_step *steps_of(const struct ruling *ruling)
{
	return (const void *)(verdicts_of(ruling) + ruling->verdicts);
}

bool ruling_is_whole(const struct ruling *ruling, size_t size)
{
	if (size < sizeof(*ruling))
		return false;
	return size ==
	       (size_t)((const char *)(steps_of(ruling) + ruling->steps) - (const char *)ruling);
}

bool ruling_asks_address(const struct ruling *ruling)
{
	return ruling->blocks;
}

bool ruling_asks_name(const struct ruling *ruling)
{
	return ruling->states;
}

/* Tab and what can be printed, as the automata's maker has it. */
bool ruling_can_read(const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (name[i] != '\t' && (name[i] < 0x20 || name[i] > 0x7e))
			return false;
	return true;
}

static bool is_ip4(const uint8_t *address)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};

	return !memcmp(address, mapped, sizeof(mapped));
}

/* An address of IPv4 is in no block of IPv6, whatever it is mapped to. */
static bool is_in(const uint8_t *address, const struct ruling_block *block)
{
	unsigned int whole = block->bits / 8, rest = block->bits % 8;

	if ((block->family == 4) != is_ip4(address) || memcmp(address, block->address, whole))
		return false;
	return !rest || !((address[whole] ^ block->address[whole]) >> (8 - rest));
}

static uint64_t facts_of_address(const struct ruling *ruling, const __be32 *address)
{
	uint64_t facts = 0;

	for (unsigned int i = 0; address && i < ruling->blocks; i++)
		if (is_in((const uint8_t *)address, &blocks_of(ruling)[i]))
			facts |= 1ull << i;
	return facts;
}

static uint16_t step(const struct ruling *ruling, const struct ruling_state *state, uint8_t byte)
{
	const struct ruling_step *steps = steps_of(ruling) + state->first;

	for (unsigned int i = 0; i < state->count; i++)
		if (steps[i].byte == byte)
			return steps[i].next;
	return state->otherwise;
}

/* Who has no identity is nobody that a condition names. */
static uint64_t facts_of_name(const struct ruling *ruling, const char *name, size_t length)
{
	const struct ruling_state *states = states_of(ruling), *state = states;

	if (!ruling->states || !length)
		return 0;
	for (size_t i = 0; i < length; i++)
		state = &states[step(ruling, state, name[i])];
	return state->facts;
}

bool ruling_allows(const struct ruling *ruling, const __be32 *address, const char *name,
		   size_t length)
{
	uint64_t facts = facts_of_address(ruling, address) | facts_of_name(ruling, name, length);

	for (unsigned int i = 0; i < ruling->verdicts; i++) {
		const struct ruling_verdict *verdict = &verdicts_of(ruling)[i];

		if ((facts & verdict->wanted) == verdict->wanted && !(facts & verdict->unwanted))
			return verdict->allowed;
	}
	return false;
}
