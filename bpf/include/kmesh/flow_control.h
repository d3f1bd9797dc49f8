/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Look before you redirect. A redirect into a socket's receive queue has no flow control of its
 * own: whatever a sleeping reader does not read piles up in kernel memory. So the sender's program
 * looks at the reader's queue, and leaves to TCP what does not fit.
 *
 * It only reads, with bpf_probe_read_kernel(), and never trusts what it reads to be the reader it
 * knew: a pointer whose socket is gone gives any value at all, which can only lead to a redirect
 * that finds no socket under the reader's cookie. The structs name what is read and nothing else;
 * their layout comes from the kernel's BTF (CO-RE).
 */
#ifndef KMESH_FLOW_CONTROL_H
#define KMESH_FLOW_CONTROL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define KMESH_O_NONBLOCK 04000 /* asm-generic/fcntl.h: x86, arm64 */

#define KMESH_CORE __attribute__((preserve_access_index))

typedef struct {
	int counter;
} KMESH_CORE atomic_t;

struct file {
	unsigned int f_flags;
} KMESH_CORE;

struct socket {
	struct file *file;
} KMESH_CORE;

struct sock_common {
	volatile unsigned char skc_state;
} KMESH_CORE;

struct list_head {
	struct list_head *next;
} KMESH_CORE;

struct wait_queue_head {
	struct list_head head;
} KMESH_CORE;

typedef struct {
	struct wait_queue_head wq;
} KMESH_CORE socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	int sk_wmem_queued;
	int sk_sndbuf;
	struct {
		atomic_t rmem_alloc;
	} KMESH_CORE sk_backlog;
	int sk_rcvlowat;
	struct socket *sk_socket;
	void *sk_user_data;
} KMESH_CORE;

struct inet_connection_sock {
	const void *icsk_ulp_ops;
} KMESH_CORE;

struct tcp_sock {
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u8 bpf_sock_ops_cb_flags;
} KMESH_CORE;

/* What waits for a reader, in bytes of kernel memory. */
static __always_inline __u32 kmesh_waiting(__u64 reader)
{
	struct sock *sk = (void *)(long)reader;

	return BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
}

/*
 * Nothing is on its way over TCP: the application has read the last byte that the sender wrote.
 * Both ends count in the same sequence numbers, as nothing stands between them. The sender is
 * locked while its program runs, so its number stands still; the reader's only ever catches up.
 */
static __always_inline int kmesh_tcp_is_empty(__u64 reader, __u64 sender)
{
	struct tcp_sock *from = (void *)(long)sender, *to = (void *)(long)reader;

	return BPF_CORE_READ(from, write_seq) == BPF_CORE_READ(to, copied_seq);
}

/*
 * Whether reads of a socket return at once. A blocking recv() on a socket in a map returns EAGAIN
 * when anything else wakes it, room to send for one (tcp_msg_wait_data() looks once), and heeds
 * neither MSG_WAITALL nor what comes over TCP meanwhile. Programs that do not block know EAGAIN and
 * short reads. Not yet accepted: no.
 */
static __always_inline int kmesh_never_blocks(__u64 socket)
{
	struct sock *sk = (void *)(long)socket;

	return (BPF_CORE_READ(sk, sk_socket, file, f_flags) & KMESH_O_NONBLOCK) != 0;
}

static __always_inline int kmesh_has_callbacks(__u64 socket, __u8 flags)
{
	struct tcp_sock *tp = (void *)(long)socket;

	return (BPF_CORE_READ(tp, bpf_sock_ops_cb_flags) & flags) != 0;
}

/* A socket that encrypts (kTLS) or does anything else to its stream on the way. */
static __always_inline int kmesh_has_layer(__u64 socket)
{
	struct inet_connection_sock *icsk = (void *)(long)socket;

	return BPF_CORE_READ(icsk, icsk_ulp_ops) != 0;
}

/* A reader that wants to be woken for more than a byte: redirected data does not heed that. */
static __always_inline int kmesh_waits_for_more(__u64 reader)
{
	struct sock *sk = (void *)(long)reader;

	return BPF_CORE_READ(sk, sk_rcvlowat) > 1;
}

/* Somebody waits for the socket's lock, which the program's caller has: to redirect to it, maybe.
 */
static __always_inline int kmesh_is_waited_for(__u64 socket)
{
	struct sock *sk = (void *)(long)socket;

	return BPF_CORE_READ(sk, sk_lock.wq.head.next) !=
	       __builtin_preserve_access_index(&sk->sk_lock.wq.head);
}

/* The number of the byte that a socket's owner will write next. */
static __always_inline __u32 kmesh_write_seq(__u64 socket)
{
	struct tcp_sock *tp = (void *)(long)socket;

	return BPF_CORE_READ(tp, write_seq);
}

/*
 * Whether a message of this size can be redirected out through a socket: it is established, has
 * room for it (half of its send buffer stays free, as a redirect that does not fit is lost without
 * a word), and nothing has come from its peer that nobody has read, its end for one.
 */
static __always_inline int kmesh_has_room(__u64 socket, __u32 size)
{
	struct tcp_sock *tp = (void *)(long)socket;
	struct sock *sk = (void *)(long)socket;
	__u32 queued = BPF_CORE_READ(sk, sk_wmem_queued);
	__u32 room = BPF_CORE_READ(sk, sk_sndbuf);

	return BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_ESTABLISHED &&
	       BPF_CORE_READ(tp, rcv_nxt) == BPF_CORE_READ(tp, copied_seq) &&
	       queued + size <= room / 2;
}

#endif
