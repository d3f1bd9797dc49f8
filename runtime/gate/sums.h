/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Numbers of which one changes, and the sums of all before each of them, in as many steps as the
 * count has digits. (P. Fenwick, "A new data structure for cumulative frequency tables", 1994)
 */
#ifndef KMESH_GATE_SUMS_H
#define KMESH_GATE_SUMS_H

#include <stdint.h>

/* `sums` has `count` + 1 elements; the numbers are in all but the first. */
static inline void sums_build(uint64_t *sums, uint32_t count)
{
	for (uint64_t i = 1; i <= count; i++)
		if (i + (i & -i) <= count)
			sums[i + (i & -i)] += sums[i];
}

static inline void sums_add(uint64_t *sums, uint32_t count, uint32_t index, int64_t change)
{
	for (uint64_t i = index + 1ull; i <= count; i += i & -i)
		sums[i] += change;
}

/* Of the first `index` numbers. */
static inline uint64_t sums_before(const uint64_t *sums, uint32_t index)
{
	uint64_t sum = 0;

	for (; index; index &= index - 1)
		sum += sums[index];
	return sum;
}

/* The number which, added to those before it, is the first that makes more than `at`. */
static inline uint32_t sums_find(const uint64_t *sums, uint32_t count, uint64_t at)
{
	uint64_t found = 0, step = 1;

	while (step * 2 <= count)
		step *= 2;
	for (; step; step /= 2) {
		if (found + step > count || sums[found + step] > at)
			continue;
		found += step;
		at -= sums[found];
	}
	return found;
}

#endif
