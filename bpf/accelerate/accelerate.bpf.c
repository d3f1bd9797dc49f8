// SPDX-License-Identifier: GPL-2.0-only
/*
 * Same-node acceleration beside the compat path: what one managed workload sends to another on this
 * node goes straight into the other's receive queue, past TCP, as long as the reader keeps up.
 */
#include <kmesh/optional.h>
#include <kmesh/pair.h>
#include <kmesh/shorten.h>
#include <kmesh/stream.h>

char LICENSE[] SEC("license") = "GPL";

static __always_inline void follow(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		kmesh_connected(ctx, true);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		kmesh_stop_announcing(ctx);
		kmesh_accepted(ctx);
		break;
	default:
		kmesh_look_after(ctx);
	}
}

SEC("sockops")
int kmesh_follow(struct bpf_sock_ops *ctx)
{
	if (kmesh_settings_in_force())
		follow(ctx);
	return 1;
}

/*
 * The same for the root cgroup, where the network namespace tells who is managed.
 * bpf_get_netns_cookie() in sockops programs: since 5.15, 6cf1770d63dd; loaded only where it is.
 */
KMESH_OPTIONAL_PROGRAM(kmesh_follow_netns);

SEC("sockops")
int kmesh_follow_netns(struct bpf_sock_ops *ctx)
{
	if (kmesh_is_followed(ctx) && kmesh_settings_in_force())
		follow(ctx);
	return 1;
}

SEC("sk_msg")
int kmesh_shorten(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct kmesh_end *end = sk ? bpf_sk_storage_get(&ends, sk, NULL, 0) : NULL;

	return end ? kmesh_short_cut(msg, sk, end) : SK_PASS;
}

/* Where the kernel counts for FIONREAD only what a verdict program let through. */
SEC("sk_skb/stream_verdict")
int kmesh_let_through(struct __sk_buff *skb)
{
	return kmesh_pass_once(skb);
}
