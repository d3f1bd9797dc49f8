/* SPDX-License-Identifier: GPL-2.0-only */
/* Eight bytes of a head at once: most of it is values in which nothing matters but their end. */
#ifndef KMESH_HTTP_WORD_H
#define KMESH_HTTP_WORD_H

#include <kmesh/http/input.h>

#define KMESH_HTTP_WORD	      8
#define KMESH_HTTP_EACH(byte) ((byte)*0x0101010101010101ull)

/*
 * 0, which the verifier must not know: what may go on by steps of two sizes looks to it the same
 * after each only if it never knew where it was.
 */
static __always_inline __u64 kmesh_http_nought(void)
{
#ifdef __bpf__
	__u64 (*const random)(void) = (void *)BPF_FUNC_get_prandom_u32;

	return random() >> 32;
#else
	return 0;
#endif
}

/* They may lie anywhere. In the kernel no copy: clang would make eight loads of it. */
static __always_inline __u64 kmesh_http_word_at(const __u8 *bytes)
{
#ifdef __bpf__
	return *(const __u64 *)bytes;
#else
	__u64 word;

	__builtin_memcpy(&word, bytes, sizeof(word));
	return word;
#endif
}

/* All bits when none of the eight is a control character, else none. */
static __always_inline __u64 kmesh_http_visible(__u64 word)
{
	__u64 high = KMESH_HTTP_EACH(0x80), del = word ^ KMESH_HTTP_EACH(0x7f);
	__u64 found = (word - KMESH_HTTP_EACH(0x20)) & ~word;

	found |= (del - KMESH_HTTP_EACH(1)) & ~del;
	return kmesh_http_below((found & high) >> 7, 1);
}

#endif
