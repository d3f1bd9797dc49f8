// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may open a connection to a workload: runs where the kernel looks for a listening socket
 * (sk_lookup, since 5.9, e9ddbb7707ff), in the network namespaces that it is attached to. A packet
 * of an established connection never comes here. What is refused finds no socket: TCP answers
 * with a reset, and the application has seen nothing.
 *
 * Only TCP is judged, as in Istio: the reply to a datagram that a workload sent from an unconnected
 * socket also arrives here, and cannot be told from a request.
 */
#include <kmesh/policy.h>
#include <linux/in.h>

char LICENSE[] SEC("license") = "GPL";

#define KMESH_AF_INET	 2
#define KMESH_KIND_SHIFT 8 /* of a row's kind above the set's flags */
#define KMESH_NO_POLICY	 0xffffffff
#define KMESH_LOGGED	 8 /* dry-run policies of one word that are counted for one connection */

static __always_inline void kmesh_source(struct bpf_sk_lookup *ctx, __be32 *address)
{
	/* What is not of the packet's family reads as zero. */
	address[0] = ctx->remote_ip6[0];
	address[1] = ctx->remote_ip6[1];
	address[2] = ctx->remote_ip6[2] | (ctx->family == KMESH_AF_INET ? KMESH_MAPPED : 0);
	address[3] = ctx->remote_ip6[3] | ctx->remote_ip4;
}

static __always_inline void kmesh_destination(struct bpf_sk_lookup *ctx, __be32 *address)
{
	address[0] = ctx->local_ip6[0];
	address[1] = ctx->local_ip6[1];
	address[2] = ctx->local_ip6[2] | (ctx->family == KMESH_AF_INET ? KMESH_MAPPED : 0);
	address[3] = ctx->local_ip6[3] | ctx->local_ip4;
}

/* Since 6.1 a hash reuses a removed element at once: a copy is good if it is still under its key.
 */
#define KMESH_READ(map, key, copy)                                                                 \
	({                                                                                         \
		int result = -1;                                                                   \
		for (kmesh_counter i = 0; i < KMESH_RETURNS && result < 0; i++) {                  \
			typeof(copy) found = bpf_map_lookup_elem(map, key);                        \
			if (found)                                                                 \
				*(copy) = *found;                                                  \
			if (bpf_map_lookup_elem(map, key) == found)                                \
				result = found != NULL;                                            \
		}                                                                                  \
		result;                                                                            \
	})

static __always_inline struct kmesh_hit *kmesh_count(__u64 set, __u32 word, __u64 bit, __u32 last)
{
	struct kmesh_hit_key key = {.set = set, .bit = bit, .word = word};
	struct kmesh_hit *hit = bpf_map_lookup_elem(&policy_hits, &key);

	if (hit && hit->policy != last)
		__sync_fetch_and_add(&hit->times, 1);
	return hit;
}

/* Each dry-run policy once, however many of its terms match. */
static __always_inline void kmesh_log_word(__u64 set, __u32 word, __u64 terms)
{
	__u32 last = KMESH_NO_POLICY;

	for (kmesh_counter i = 0; i < KMESH_LOGGED && terms; i++) {
		struct kmesh_hit *hit = kmesh_count(set, word, terms & -terms, last);

		if (hit)
			last = hit->policy;
		terms &= terms - 1;
	}
}

static __always_inline struct kmesh_row *kmesh_identity_row(__u64 set, __u32 number, __u64 identity)
{
	struct kmesh_row_key key = {.set = set, .number = number};
	struct kmesh_row *row;

	key.kind = KMESH_ROW_NO_IDENTITY;
	if (identity) {
		key.kind = KMESH_ROW_IDENTITY;
		key.value = identity;
		row = bpf_map_lookup_elem(&policy_rows, &key);
		if (row)
			return row;
		key.kind = KMESH_ROW_ANY_IDENTITY;
		key.value = 0;
	}
	return bpf_map_lookup_elem(&policy_rows, &key);
}

static __always_inline struct kmesh_row *kmesh_port_row(__u64 set, __u32 number, __u32 port)
{
	struct kmesh_row_key key = {.set = set, .number = number};
	struct kmesh_row *row;

	key.kind = KMESH_ROW_PORT;
	key.value = port;
	row = bpf_map_lookup_elem(&policy_rows, &key);
	if (row)
		return row;
	key.kind = KMESH_ROW_ANY_PORT;
	key.value = 0;
	return bpf_map_lookup_elem(&policy_rows, &key);
}

static __always_inline struct kmesh_row *kmesh_source_row(__u64 set, __u32 number, __u64 high,
							  __u64 low)
{
	struct kmesh_block_key key = {
		.prefix_length = KMESH_BLOCK_FIXED_BITS + 128,
		.number = number,
		.set = set,
		.address = {high, high >> 32, low, low >> 32},
	};

	return bpf_map_lookup_elem(&policy_blocks, &key);
}

enum kmesh_finding { KMESH_NO_MATCH, KMESH_MATCH, KMESH_ROW_GONE };

/* Which row to walk, and for which port: in one word, as a function has five arguments at most. */
#define KMESH_WALK(number, kind, flags, port)                                                      \
	((number) | (kind) << 8 | (flags) << 16 | (__u64)(port) << 32)

/*
 * Whether a term of this row matches; it is counted. Not inlined and not static, so that the
 * verifier judges it once, for all rows (since 5.6, 51c39bb1d5d1). Its arguments are numbers: 5.10
 * takes no others in an sk_lookup program. The source's address is in words 0 and 1, and 2 and 3.
 */
__attribute__((noinline)) int kmesh_walk_row(__u64 set, __u64 identity, __u64 walk, __u64 high,
					     __u64 low)
{
	__u32 number = walk & 0xff, kind = walk >> 8 & 0xff, flags = walk >> 16 & 0xff;
	struct kmesh_row *port = kmesh_port_row(set, number, walk >> 32);
	struct kmesh_row *source = port, *who = port;

	if (flags & KMESH_BY_IDENTITY)
		who = kmesh_identity_row(set, number, identity);
	if (flags & KMESH_BY_SOURCE)
		source = kmesh_source_row(set, number, high, low);
	if (!port || !who || !source)
		return KMESH_ROW_GONE;
	for (kmesh_counter i = 0; i < KMESH_ROW_WORDS; i++) {
		__u64 terms = port->words[i] & who->words[i] & source->words[i];
		__u32 word = number * KMESH_ROW_WORDS + i;

		if (!terms)
			continue;
		if (kind == KMESH_DRY_RUN) {
			kmesh_log_word(set, word, terms);
			continue;
		}
		kmesh_count(set, word, terms & -terms, KMESH_NO_POLICY);
		return KMESH_MATCH;
	}
	return KMESH_NO_MATCH;
}

struct kmesh_request {
	struct kmesh_address_key source;
	struct kmesh_address_key destination;
	__u64 identity;
	__u32 port;
};

/* SK_PASS, SK_DROP, or -1 when a row was gone. */
static __always_inline __s64 kmesh_judge(const struct kmesh_request *request,
					 const struct kmesh_guard *guard)
{
	__s64 verdict = guard->flags & KMESH_HAS_ALLOW ? SK_DROP : SK_PASS;
	const __be32 *source = request->source.address;
	__u64 high = source[0] | (__u64)source[1] << 32;
	__u64 low = source[2] | (__u64)source[3] << 32;
	int decided = 0;

	if (guard->flags & KMESH_CLOSED) {
		kmesh_count(guard->set, KMESH_ALL_REFUSED, 0, KMESH_NO_POLICY);
		return SK_DROP;
	}
	for (kmesh_counter number = 0; number < KMESH_ROWS; number++) {
		__u32 kind = guard->rows >> (2 * number) & 3;
		int found;

		if (kind == KMESH_END)
			break;
		if (kind != KMESH_DRY_RUN && decided)
			continue;
		found = kmesh_walk_row(guard->set, request->identity,
				       KMESH_WALK(number, kind, guard->flags, request->port), high,
				       low);
		if (found == KMESH_ROW_GONE)
			return -1;
		if (found == KMESH_MATCH) {
			verdict = kind == KMESH_DENY ? SK_DROP : SK_PASS;
			decided = 1;
		}
	}
	if (verdict == SK_DROP && !decided)
		kmesh_count(guard->set, KMESH_NO_TERM_ALLOWS, 0, KMESH_NO_POLICY);
	return verdict;
}

/* The set is the same after the walk: no row that was looked for had gone. */
/* Verdicts are eight bytes wide: see compiler.h. */
static __always_inline int kmesh_authorize(const struct kmesh_request *request)
{
	struct kmesh_guard guard = {}, now = {};

	for (kmesh_counter i = 0; i < KMESH_RETURNS; i++) {
		__s64 verdict, found = KMESH_READ(&guards, &request->destination, &guard);

		if (!found)
			return SK_PASS;
		if (found < 0)
			break;
		verdict = kmesh_judge(request, &guard);
		found = KMESH_READ(&guards, &request->destination, &now);
		if (!found)
			return SK_PASS;
		if (found > 0 && now.set == guard.set && verdict >= 0)
			return verdict;
	}
	return SK_DROP;
}

SEC("sk_lookup")
int kmesh_authorize_tcp(struct bpf_sk_lookup *ctx)
{
	struct kmesh_request request = {.port = ctx->local_port};
	struct kmesh_identity identity = {};

	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	kmesh_source(ctx, request.source.address);
	kmesh_destination(ctx, request.destination.address);
	if (!bpf_map_lookup_elem(&guards, &request.destination))
		return SK_PASS;
	/* A workload may always talk to itself. */
	if (kmesh_same_address(request.source.address, request.destination.address))
		return SK_PASS;
	if (KMESH_READ(&identities, &request.source, &identity) > 0) {
		if (identity.flags & KMESH_EXEMPT)
			return SK_PASS;
		request.identity = identity.identity;
	}
	return kmesh_authorize(&request);
}
