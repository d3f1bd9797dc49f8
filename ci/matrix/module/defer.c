// SPDX-License-Identifier: GPL-2.0-only
/*
 * The upper layer protocol "kmesh_defer": connect() only notes where to; the first sendmsg() asks
 * the cgroup's connect4 programs again, now with its bytes in `t_ctx`, and connects to where they say.
 */
#include <linux/bpf-cgroup.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <net/inet_common.h>
#include <net/tcp.h>

#include "kmesh_kfuncs.h"

#define MESSAGE_MAX 8192 /* bytes shown to the programs */

static struct proto defer_proto;

static bool is_deferred(const struct sock *sk)
{
	/* TCP_FASTOPEN_CONNECT has the flag for itself. */
	return inet_test_bit(DEFER_CONNECT, sk) && !tcp_sk(sk)->fastopen_connect;
}

static int defer_connect(struct sock *sk, struct sockaddr *address, int size)
{
	const struct sockaddr_in *to = (const struct sockaddr_in *)address;

	if (tcp_sk(sk)->fastopen_connect)
		return tcp_prot.connect(sk, address, size);
	if (size < (int)sizeof(*to) || to->sin_family != AF_INET)
		return -EINVAL;
	sk->sk_dport = to->sin_port;
	sk_daddr_set(sk, to->sin_addr.s_addr);
	inet_set_bit(DEFER_CONNECT, sk); /* so that poll() says it can be written to */
	tcp_set_state(sk, TCP_SYN_SENT);
	return 0;
}

/* What is about to be sent, at most MESSAGE_MAX of it, without taking it. */
static int peek(struct msghdr *msg, size_t size, struct bpf_mem_ptr *message)
{
	struct iov_iter from = msg->msg_iter;

	size = min_t(size_t, size, MESSAGE_MAX);
	message->ptr = kmalloc(size ?: 1, GFP_KERNEL);
	if (!message->ptr)
		return -ENOMEM;
	message->size = copy_from_iter(message->ptr, size, &from);
	return message->size == size ? 0 : -EFAULT;
}

static int ask(struct sock *sk, struct sockaddr_in *to, struct bpf_mem_ptr *message)
{
	int size = sizeof(*to), err;

	/* What they parse is kept for the CPU, and must be forgotten there. */
	migrate_disable();
	err = __cgroup_bpf_run_filter_sock_addr(sk, (struct sockaddr *)to, &size,
						CGROUP_INET4_CONNECT, message, NULL);
	kmesh_forget_header();
	migrate_enable();
	return err;
}

static int connect_now(struct sock *sk, struct msghdr *msg, size_t size)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = sk->sk_dport,
				 .sin_addr.s_addr = sk->sk_daddr};
	struct bpf_mem_ptr message = {};
	int err = peek(msg, size, &message);

	if (!err) {
		err = ask(sk, &to, &message);
		inet_clear_bit(DEFER_CONNECT, sk);
		if (!err)
			err = tcp_prot.connect(sk, (struct sockaddr *)&to, sizeof(to));
		if (err) {
			tcp_set_state(sk, TCP_CLOSE);
			sk->sk_dport = 0;
		}
	}
	kfree(message.ptr);
	return err;
}

static int defer_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)
{
	int err = 0;

	if (unlikely(is_deferred(sk))) {
		lock_sock(sk);
		if (is_deferred(sk))
			err = connect_now(sk, msg, size);
		release_sock(sk);
		if (err)
			return err;
	}
	return tcp_sendmsg(sk, msg, size); /* waits for the connection, as always */
}

static int defer_init(struct sock *sk)
{
	if (sk->sk_family == AF_INET)
		WRITE_ONCE(sk->sk_prot, &defer_proto);
	return 0;
}

static struct tcp_ulp_ops defer_ops __read_mostly = {
	.name = "kmesh_defer",
	.owner = THIS_MODULE,
	.init = defer_init,
};

int kmesh_register_defer(void)
{
	defer_proto = tcp_prot;
	defer_proto.connect = defer_connect;
	defer_proto.sendmsg = defer_sendmsg;
	return tcp_register_ulp(&defer_ops);
}

void kmesh_unregister_defer(void)
{
	tcp_unregister_ulp(&defer_ops);
}
