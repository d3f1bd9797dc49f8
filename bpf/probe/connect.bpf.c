// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the compat path does to a connection: a service address becomes an
 * endpoint before the first packet. One table per attach type, as a map that
 * two of them share is what a patch release once refused (CVE-2025-40123).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ALLOW 1

struct place4 {
	__u32 addr; /* network order */
	__u32 port; /* network order, as in struct bpf_sock_addr */
};

struct place6 {
	__u32 addr[4];
	__u32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct place4);
	__type(value, struct place4);
} services4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct place6);
	__type(value, struct place6);
} services6 SEC(".maps");

SEC("cgroup/connect4")
int rewrite4(struct bpf_sock_addr *ctx)
{
	struct place4 service = {.addr = ctx->user_ip4, .port = ctx->user_port};
	struct place4 *endpoint = bpf_map_lookup_elem(&services4, &service);

	if (!endpoint)
		return ALLOW;
	ctx->user_ip4 = endpoint->addr;
	ctx->user_port = endpoint->port;
	return ALLOW;
}

SEC("cgroup/connect6")
int rewrite6(struct bpf_sock_addr *ctx)
{
	struct place6 service = {.port = ctx->user_port};
	struct place6 *endpoint;

	service.addr[0] = ctx->user_ip6[0];
	service.addr[1] = ctx->user_ip6[1];
	service.addr[2] = ctx->user_ip6[2];
	service.addr[3] = ctx->user_ip6[3];
	endpoint = bpf_map_lookup_elem(&services6, &service);
	if (!endpoint)
		return ALLOW;
	ctx->user_ip6[0] = endpoint->addr[0];
	ctx->user_ip6[1] = endpoint->addr[1];
	ctx->user_ip6[2] = endpoint->addr[2];
	ctx->user_ip6[3] = endpoint->addr[3];
	ctx->user_port = endpoint->port;
	return ALLOW;
}

char _license[] SEC("license") = "GPL";
