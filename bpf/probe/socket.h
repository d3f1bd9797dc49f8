/* SPDX-License-Identifier: GPL-2.0-only */
/* What the socket programs of the battery share: socket hashes by cookie, a plan kept on each
 * socket. */
#ifndef KMESH_PROBE_SOCKET_H
#define KMESH_PROBE_SOCKET_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define SOCKETS 64

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, __u64);
} enrolled SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, __u64);
} targets SEC(".maps");

/* bpf_get_socket_cookie() cannot be called from sk_msg, so the socket carries what it needs. */
struct plan {
	__u64 self;   /* this socket's cookie */
	__u64 target; /* the cookie of the socket that its data goes to; 0: pass */
	__u32 ways;   /* WAY_* */
	__u32 held;   /* what the last message left behind, as each program says */
	__u32 tail;   /* the last four bytes sent, where a program keeps them */
	__u32 ahead;  /* bytes redirected since the reader's queue was last empty */
};

#define WAY_INGRESS 1

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct plan);
} plans SEC(".maps");

/* Which enrolled socket the data that reaches a target belongs to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, __u64);
} bindings SEC(".maps");

/* Counted by the programs so that user space sees which way the data went. */
enum counter {
	COUNT_ESTABLISHED,
	COUNT_CLOSED,
	COUNT_MESSAGES,
	COUNT_REDIRECTED,
	COUNT_REDIRECTED_BYTES,
	COUNT_PASSED,
	COUNT_RETURNED,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which, __u64 by)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &which);

	if (value)
		__sync_fetch_and_add(value, by);
}

static __always_inline struct plan *plan_of(struct bpf_sock *sk)
{
	return sk ? bpf_sk_storage_get(&plans, sk, 0, 0) : 0;
}

static __always_inline int pass(void)
{
	count(COUNT_PASSED, 1);
	return SK_PASS;
}

/* A target that is gone since would fail the sender's send() with EACCES: pass instead. */
static __always_inline int redirect(struct sk_msg_md *msg, struct plan *plan)
{
	__u64 flags = plan->ways & WAY_INGRESS ? BPF_F_INGRESS : 0;
	__u64 target = plan->target;

	if (bpf_msg_redirect_hash(msg, &targets, &target, flags) != SK_PASS)
		return pass();
	count(COUNT_REDIRECTED, 1);
	count(COUNT_REDIRECTED_BYTES, msg->size);
	return SK_PASS;
}

/* Put the socket of an established connection under its cookie, with an empty plan. */
static __always_inline int enroll_established(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct plan *plan;
	__u64 cookie;

	if (!sk)
		return -1;
	plan = bpf_sk_storage_get(&plans, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!plan)
		return -1;
	cookie = bpf_get_socket_cookie(ctx);
	plan->self = cookie;
	if (bpf_sock_hash_update(ctx, &enrolled, &cookie, BPF_ANY))
		return -1;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	count(COUNT_ESTABLISHED, 1);
	return 0;
}

#endif
