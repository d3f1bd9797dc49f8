// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reader and the router of HTTP heads by themselves: what a message's head is taken for is left
 * in a map, and the message passes. For the tests and the measurements, and an example of how the
 * two are used.
 */
#include <kmesh/http/maps.h>
#include <kmesh/http/pieces.h>

char LICENSE[] SEC("license") = "GPL";

/* One socket at a time: what a data path keeps in socket storage is a map of one element here. */
struct kmesh_http_trial {
	struct kmesh_http_set set;
	struct kmesh_http_head head;
	struct kmesh_http_reading reading;
	struct kmesh_http_walk walk;
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

__noinline int http_read_piece(struct sk_msg_md *msg)
{
	const struct kmesh_http_input in = {.data = msg->data, .end = msg->data_end};
	struct kmesh_http_trial *trial = the_trial();
	const struct kmesh_http_grammar *grammar;

	grammar = trial ? kmesh_http_grammar_of(trial->set.grammar) : NULL;
	if (!grammar)
		return KMESH_HTTP_NO_TABLE;
	if (!trial->reading.at)
		kmesh_http_begin(grammar, &trial->head, &trial->reading);
	return kmesh_http_read(&in, grammar, &trial->head, &trial->reading);
}

__noinline int http_match_piece(struct sk_msg_md *msg)
{
	const struct kmesh_http_input in = {.data = msg->data, .end = msg->data_end};
	struct kmesh_http_trial *trial = the_trial();
	int verdict = KMESH_HTTP_MORE;
	void *graph;

	graph = trial ? kmesh_http_graph_of(trial->set.graph) : NULL;
	if (!graph)
		return KMESH_HTTP_NO_TABLE;
	if (!trial->walk.steps)
		verdict = kmesh_http_enter(&trial->head, graph, &trial->walk);
	if (verdict != KMESH_HTTP_MORE)
		return verdict;
	return kmesh_http_step(&in, &trial->head, graph, &trial->walk, &trial->outcome);
}

SEC("sk_msg")
int http_read(struct sk_msg_md *msg)
{
	struct kmesh_http_trial *trial = the_trial();
	__u32 size = msg->size;
	__u64 started, read;

	if (!trial)
		return SK_PASS;
	if (size > KMESH_HTTP_HEAD_MAX)
		size = KMESH_HTTP_HEAD_MAX;
	if (bpf_msg_pull_data(msg, 0, size, 0))
		return SK_PASS;
	trial->reading.at = 0;
	trial->walk.steps = 0;
	started = bpf_ktime_get_ns();
	trial->verdict = kmesh_http_pieces(http_read_piece, KMESH_HTTP_READ_PIECES, msg);
	read = bpf_ktime_get_ns();
	trial->parse_ns += read - started;
	trial->messages++;
	if (trial->verdict != KMESH_HTTP_OK)
		return SK_PASS;
	trial->verdict = kmesh_http_pieces(http_match_piece, KMESH_HTTP_MATCH_PIECES, msg);
	trial->match_ns += bpf_ktime_get_ns() - read;
	return SK_PASS;
}
