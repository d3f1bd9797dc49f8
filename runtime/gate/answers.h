/* SPDX-License-Identifier: GPL-2.0-only */
/* How a request is answered without an endpoint. */
#ifndef KMESH_GATE_ANSWERS_H
#define KMESH_GATE_ANSWERS_H

#include <kmesh/gate_types.h>
#include <kmesh/http/types.h>
#include <stdbool.h>
#include <stddef.h>

#define ANSWERS_LOCATION 16384 /* bytes of it: the request's target and the texts of a route */

/* redirect.c: the length of `*location`, which is good until the next call */
size_t redirect_write(const struct kmesh_route *route, const char *texts, const char *head,
		      const struct kmesh_http_head *parsed, const char **location);

/* limit.c */
bool limit_exceeded(const struct kmesh_route *route);
bool limit_aborts(const struct kmesh_route *route);

#endif
