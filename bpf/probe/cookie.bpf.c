// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tells the cookie of a network namespace where getsockopt(SO_NETNS_COOKIE) does not: a process in
 * that namespace connects a socket whose own cookie is in the map.
 * delete: when 5.14 is the oldest kernel (e8b9eab99232).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u64);
	__type(value, __u64);
} asked SEC(".maps");

SEC("cgroup/connect4")
int tell_cookie(struct bpf_sock_addr *ctx)
{
	__u64 socket = bpf_get_socket_cookie(ctx);
	__u64 *answer = bpf_map_lookup_elem(&asked, &socket);

	if (answer)
		*answer = bpf_get_netns_cookie(ctx);
	return 1;
}
