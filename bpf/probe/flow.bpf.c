// SPDX-License-Identifier: GPL-2.0-only
/*
 * Look before you redirect. A redirect has no flow control of its own: data is lost without an
 * error, or piles up in kernel memory. So look at the queue that the data would go to, and leave to
 * TCP what does not fit. The fields' places come from the kernel's BTF (CO-RE); the structs below
 * name what is read and nothing else.
 */
#include "socket.h"
#include <bpf/bpf_core_read.h>
#include <kmesh/kernel_socket.h>

#define CORE __attribute__((preserve_access_index))

typedef struct {
	int counter;
} CORE atomic_t;

struct sock {
	struct {
		atomic_t rmem_alloc;
	} CORE sk_backlog;
	int sk_wmem_queued;
	int sk_sndbuf;
	void *sk_user_data;
} CORE;

struct list_head {
	struct list_head *next;
} CORE;

/* What the kernel keeps of a socket that is in a socket map. */
struct sk_psock {
	struct list_head ingress_msg;
} CORE;

struct tcp_sock {
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 write_seq;
} CORE;

/* How much may wait for a reader before its sender is left to TCP. */
const volatile __u32 reader_limit = 65536;

/* The kernel's socket behind a cookie, kept from establishment to close. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS);
	__type(key, __u64);
	__type(value, __u64);
} kernel_sockets SEC(".maps");

SEC("sockops")
int keep(struct bpf_sock_ops *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct bpf_sock *sk = ctx->sk;
	__u64 address;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		address = kmesh_kernel_socket(sk);
		bpf_map_update_elem(&kernel_sockets, &cookie, &address, BPF_ANY);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			bpf_map_delete_elem(&kernel_sockets, &cookie);
		break;
	}
	return 1;
}

static __always_inline void *kernel_socket(__u64 cookie)
{
	__u64 *address = bpf_map_lookup_elem(&kernel_sockets, &cookie);

	return address ? (void *)(long)*address : 0;
}

#define POINTER_FLAGS 7UL /* SK_USER_DATA_*, kept in the low bits */

/* Whether what was redirected to a reader has been read. */
static __always_inline int queue_is_empty(struct sock *reader)
{
	__u64 psock = (__u64)BPF_CORE_READ(reader, sk_user_data) & ~POINTER_FLAGS;
	__u64 head = psock + bpf_core_field_offset(struct sk_psock, ingress_msg);
	__u64 next;

	if (!psock)
		return 1;
	next = (__u64)BPF_CORE_READ((struct sk_psock *)psock, ingress_msg.next);
	return next == head;
}

/*
 * What waits for a reader. Its own memory does not count what was redirected to it on older kernels
 * (seen on 5.10), so that is counted here as well, from when its queue was last empty.
 */
static __always_inline __u32 waiting(struct sock *reader, struct plan *plan)
{
	__u32 memory = BPF_CORE_READ(reader, sk_backlog.rmem_alloc.counter);

	if (queue_is_empty(reader))
		plan->ahead = 0;
	return plan->ahead > memory ? plan->ahead : memory;
}

/* Nothing on its way over TCP: neither unread, nor unacknowledged. Without the latter bytes
 * overtake. */
static __always_inline int tcp_is_empty(struct tcp_sock *reader, struct tcp_sock *sender)
{
	if (BPF_CORE_READ(sender, snd_una) != BPF_CORE_READ(sender, write_seq))
		return 0;
	return BPF_CORE_READ(reader, rcv_nxt) == BPF_CORE_READ(reader, copied_seq);
}

/* Both ends on one node: into the reader's queue while it reads, else over TCP until both are
 * empty. */
SEC("sk_msg")
int shortcut(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);
	void *reader, *sender;

	count(COUNT_MESSAGES, 1);
	if (!plan || !plan->target)
		return pass();
	reader = kernel_socket(plan->target);
	sender = kernel_socket(plan->self);
	if (!reader || !sender)
		return pass();
	if (plan->held) {
		if (waiting(reader, plan) || !tcp_is_empty(reader, sender))
			return pass();
		plan->held = 0;
	}
	if (waiting(reader, plan) > reader_limit) {
		plan->held = 1;
		return pass();
	}
	plan->ahead += msg->size;
	return redirect(msg, plan);
}

/* To an upstream: what its send queue has room for; from the first that does not fit on, the gate.
 */
SEC("sk_msg")
int upstream(struct sk_msg_md *msg)
{
	struct plan *plan = plan_of(msg->sk);
	struct sock *target;
	__u32 queued, room;

	count(COUNT_MESSAGES, 1);
	if (!plan || !plan->target || plan->held)
		return pass();
	target = kernel_socket(plan->target);
	if (!target)
		return pass();
	queued = BPF_CORE_READ(target, sk_wmem_queued);
	room = (__u32)BPF_CORE_READ(target, sk_sndbuf) >> 1;
	if (queued + msg->size > room) {
		plan->held = 1;
		return pass();
	}
	return redirect(msg, plan);
}

char _license[] SEC("license") = "GPL";
