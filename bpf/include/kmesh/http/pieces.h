/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading and routing a head of any length in an sk_msg program. A piece is a global function: the
 * verifier walks it once by itself, where it would walk a loop's every step.
 */
#ifndef KMESH_HTTP_PIECES_H
#define KMESH_HTTP_PIECES_H

#include <kmesh/http/match.h>

#define KMESH_HTTP_READ_PIECES	(KMESH_HTTP_HEAD_MAX / KMESH_HTTP_PIECE)
#define KMESH_HTTP_MATCH_PIECES (KMESH_HTTP_STEPS / KMESH_HTTP_PIECE)

/* The verdict of the first piece that has one. */
static __always_inline int kmesh_http_pieces(int (*piece)(struct sk_msg_md *msg), int count,
					     struct sk_msg_md *msg)
{
	int verdict = KMESH_HTTP_TOO_LONG;

	KMESH_HTTP_FLAT_LOOP
	for (int i = 0; i < count; i++) {
		verdict = piece(msg);
		if (verdict != KMESH_HTTP_MORE)
			break;
	}
	return verdict;
}

#endif
