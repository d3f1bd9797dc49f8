// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reader and the router of HTTP heads by themselves: what a message's head is taken for is left
 * in a map, and the message passes. For the tests and the measurements, and an example of how the
 * two are used.
 */
#include <kmesh/http/maps.h>
#include <kmesh/http/match.h>

char LICENSE[] SEC("license") = "GPL";

/* One socket at a time: what a data path keeps in socket storage is a map of one element here. */
struct kmesh_http_trial {
	struct kmesh_http_set set;
	struct kmesh_http_head head;
	struct kmesh_http_outcome outcome;
	__u32 verdict;
	__u32 messages;
	__u64 parse_ns; /* of all messages */
	__u64 match_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_http_trial);
} http_trial SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} http_steps SEC(".maps");

/* Whose messages are read. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} http_sockets SEC(".maps");

/* What the inner maps hold, in a form that the layout can be generated from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_http_move);
} http_moves SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kmesh_http_cell);
} http_cells SEC(".maps");

static __always_inline struct kmesh_http_trial *the_trial(void)
{
	const __u32 only = 0;

	return bpf_map_lookup_elem(&http_trial, &only);
}

SEC("sk_msg")
int http_read(struct sk_msg_md *msg)
{
	struct kmesh_http_trial *trial = the_trial();
	const struct kmesh_http_grammar *grammar;
	struct kmesh_http_input in;
	__u32 size = msg->size;
	__u64 started;

	if (!trial)
		return SK_PASS;
	if (size > KMESH_HTTP_HEAD_MAX)
		size = KMESH_HTTP_HEAD_MAX;
	if (bpf_msg_pull_data(msg, 0, size, 0))
		return SK_PASS;
	grammar = kmesh_http_grammar_of(trial->set.grammar);
	if (!grammar)
		return SK_PASS;
	in.data = msg->data;
	in.end = msg->data_end;
	started = bpf_ktime_get_ns();
	trial->verdict = kmesh_http_parse(&in, grammar, &trial->head);
	trial->parse_ns += bpf_ktime_get_ns() - started;
	trial->messages++;
	if (trial->verdict == KMESH_HTTP_OK)
		bpf_tail_call(msg, &http_steps, 0);
	return SK_PASS;
}

SEC("sk_msg")
int http_route(struct sk_msg_md *msg)
{
	struct kmesh_http_trial *trial = the_trial();
	struct kmesh_http_input in;
	__u64 started;
	void *graph;

	if (!trial)
		return SK_PASS;
	graph = kmesh_http_graph_of(trial->set.graph);
	if (!graph)
		return SK_PASS;
	in.data = msg->data;
	in.end = msg->data_end;
	started = bpf_ktime_get_ns();
	trial->verdict = kmesh_http_match(&in, &trial->head, graph, &trial->outcome);
	trial->match_ns += bpf_ktime_get_ns() - started;
	return SK_PASS;
}
