/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a kernel with Kmesh's own functions gives a connect4 program: they themselves, and the bytes
 * that a deferred connect() was waiting for.
 */
#ifndef KMESH_OPENEULER_KFUNCS_H
#define KMESH_OPENEULER_KFUNCS_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define KMESH_TCP_ULP	       31 /* linux/tcp.h */
#define KMESH_STRNCMP_EXACT    2
#define KMESH_HTTP_1_1_REQUEST 0x101 /* protocol, and kind of message << 8 */

/* How a program hands over its context, and how the kernel keeps a message. */
struct kmesh_mem_ptr {
	void *ptr;
	__u32 size;
};

extern int bpf_parse_header_msg_func(void *src, int src__sz) __ksym;
extern int bpf_km_header_strncmp_func(const char *key, int key__sz, const char *target,
				      int target__sz, int opt) __ksym;
extern int bpf_setsockopt_func(void *bpf_mem, int bpf_mem__sz, int optname, const char *optval,
			       int optval__sz) __ksym;

struct bpf_sock_addr_kern {
	void *t_ctx;
} __attribute__((preserve_access_index));

/* What is about to be sent on a socket whose connect() was deferred; false: nothing yet. */
static __always_inline bool kmesh_message(struct bpf_sock_addr *ctx, struct kmesh_mem_ptr *message)
{
	const struct bpf_sock_addr_kern *kernel = (const void *)ctx;
	void *at = NULL;

	if (bpf_core_read(&at, sizeof(at), &kernel->t_ctx) || !at)
		return false;
	return !bpf_probe_read_kernel(message, sizeof(*message), at) && message->ptr;
}

/* Have the socket wait for its first bytes before it connects. */
static __always_inline bool kmesh_defer(struct bpf_sock_addr *ctx)
{
	struct kmesh_mem_ptr handed = {.ptr = ctx, .size = sizeof(*ctx)};
	char name[] = "kmesh_defer";

	return !bpf_setsockopt_func(&handed, sizeof(handed), KMESH_TCP_ULP, name, sizeof(name));
}

static __always_inline bool kmesh_is_request(struct bpf_sock_addr *ctx)
{
	struct kmesh_mem_ptr handed = {.ptr = ctx, .size = sizeof(*ctx)};

	return bpf_parse_header_msg_func(&handed, sizeof(handed)) == KMESH_HTTP_1_1_REQUEST;
}

/* Whether the kernel's reader has found this target in what it parsed last. */
static __always_inline bool kmesh_has_target(const char *target, __u32 size)
{
	char key[] = "URI";

	return !bpf_km_header_strncmp_func(key, sizeof(key), target, size, KMESH_STRNCMP_EXACT);
}

#endif
