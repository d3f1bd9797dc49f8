/* SPDX-License-Identifier: GPL-2.0-only */
/* How a request is answered without an endpoint, and what of it chooses one. */
#ifndef KMESH_GATE_ANSWERS_H
#define KMESH_GATE_ANSWERS_H

#include "gate.h"
#include <kmesh/http/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWERS_LOCATION 16384 /* bytes of it: the request's target and the texts of a route */

/* redirect.c: the length of `*location`, which is good until the next call */
size_t redirect_write(const struct kmesh_route *route, const char *texts, const char *head,
		      const struct kmesh_http_head *parsed, const char **location);

/* limit.c */
bool limit_exceeded(const struct kmesh_route *route);
bool limit_aborts(const struct kmesh_route *route);

/* admit.c: by a ruling; false: the client may not, and why, where that is not by the rules */
bool admit(const struct session *session, const void *ruling, size_t size, const char **reason);

/* hash.c */
bool hash_request(const struct kmesh_route *route, const char *texts, size_t texts_size,
		  const char *head, const struct kmesh_http_head *parsed, const __be32 *source,
		  uint64_t *hash);
bool hash_choose(const uint64_t *ring, size_t size, uint64_t hash, struct kmesh_endpoint *endpoint);

#endif
