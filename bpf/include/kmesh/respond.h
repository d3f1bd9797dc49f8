/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answers without an endpoint. The request becomes the response on its way, and turns back into its
 * sender's own receive queue.
 */
#ifndef KMESH_RESPOND_H
#define KMESH_RESPOND_H

#include <kmesh/client.h>
#include <kmesh/compiler.h>
#include <kmesh/ready.h>
#include <kmesh/stat.h>

#define KMESH_WORDS (KMESH_ANSWER_MOST / 8)

/* Never changed once it is there, and kept as long as a program may read it (RCU). */
static __always_inline const struct kmesh_answer *kmesh_answer_of(const struct kmesh_client *client)
{
	__u64 number = client->port.answers;
	__u32 index = client->answer;
	void *inner = bpf_map_lookup_elem(&http_answers, &number);

	return inner ? bpf_map_lookup_elem(inner, &index) : NULL;
}

static __always_inline const struct kmesh_clock *kmesh_clock(void)
{
	const __u32 only = 0;

	return bpf_map_lookup_elem(&http_clock, &only);
}

static __always_inline bool kmesh_answers_here(void)
{
	const __u32 only = 0;
	__u32 *on = bpf_map_lookup_elem(&answers_here, &only);

	return on && *on;
}

static __always_inline int kmesh_write_date(struct sk_msg_md *msg, __u32 where)
{
	const struct kmesh_clock *clock = kmesh_clock();
	__u8 *at = msg->data;
	const __u8 *date;

	if (!clock)
		return -1;
	date = clock->dates + (clock->current & 1) * KMESH_DATE_ROOM;
	KMESH_MASK(where, 255);
	at += where;
	if (at + KMESH_DATE > (__u8 *)msg->data_end)
		return -1;
	for (int i = 0; i < KMESH_DATE; i++)
		at[i] = date[i];
	return 0;
}

/* Over a message of the answer's size. Not static: the verifier walks it once by itself. */
__noinline int kmesh_write_answer(struct sk_msg_md *msg)
{
	struct kmesh_client *client = kmesh_client_of(msg);
	const struct kmesh_answer *answer = client ? kmesh_answer_of(client) : NULL;
	__u8 *at = msg->data, *end = msg->data_end;
	const __u64 *words;
	__u32 word = 0;

	if (!answer)
		return -1;
	words = (const __u64 *)answer->text;
	for (; word < KMESH_WORDS && at + 8 <= end; word++, at += 8)
		*(__u64 *)at = words[word];
	for (__u32 i = 0; i < 7 && word < KMESH_WORDS && at + 1 <= end; i++, at++)
		*at = answer->text[word * 8 + i];
	return kmesh_write_date(msg, answer->date);
}

/* The message is the answer from here on, or lost. */
static __always_inline int kmesh_turn_back(struct sk_msg_md *msg, __u32 size, __u32 asked,
					   __u64 client)
{
	if (bpf_msg_pop_data(msg, size, asked, 0) || bpf_msg_pull_data(msg, 0, size, 0) ||
	    kmesh_write_answer(msg))
		return SK_DROP;
	return bpf_msg_redirect_hash(msg, &clients, &client, BPF_F_INGRESS);
}

/*
 * Whether the kernel answers a request, which is idle as for any that it takes; what becomes of the
 * message is in `verdict`.
 */
static __always_inline bool kmesh_respond(struct sk_msg_md *msg, const struct kmesh_client *client,
					  const struct kmesh_slot *slot, int *verdict)
{
	const struct kmesh_answer *answer = kmesh_answer_of(client);
	const struct kmesh_clock *clock = kmesh_clock();
	__u32 asked = msg->size, size, status;
	__u64 since = bpf_ktime_get_ns();

	if (!answer || !clock || since > clock->until || slot->by_gate || !kmesh_is_next(slot))
		return false;
	size = answer->size;
	status = answer->status;
	if (!size || size > KMESH_ANSWER_MOST || bpf_msg_push_data(msg, 0, size, 0))
		return false;
	*verdict = kmesh_turn_back(msg, size, asked, client->cookie);
	if (*verdict == SK_PASS) {
		kmesh_count(KMESH_ANSWERED);
		kmesh_count_served(client->stat, since, asked, status, size);
	}
	return true;
}

#endif
