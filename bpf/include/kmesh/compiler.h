/* SPDX-License-Identifier: GPL-2.0-only */
/* Differences between compilers that the programs must know of. */
#ifndef KMESH_COMPILER_H
#define KMESH_COMPILER_H

#include <linux/types.h>

/*
 * The counter of a loop. What clang 13 puts aside on the stack in four bytes the verifier forgets:
 * a counter of 32 bits looks to it like an infinite loop. From clang 14 on it stays in a register,
 * where 64 bits cost the verifier eight times as much as 32.
 * delete: when clang 14 is the oldest.
 */
#if __clang_major__ < 14
typedef __u64 kmesh_counter;
#else
typedef __u32 kmesh_counter;
#endif

/*
 * value &= mask, in assembly: clang drops a mask that it can prove to be needless, or moves it away
 * from where the verifier needs it. Up to 6.1 that knows nothing of what comes out of a 32-bit `|`.
 */
#define KMESH_MASK(value, mask) asm volatile("%0 &= %1" : "+r"(value) : "i"(mask))

#endif
