/* SPDX-License-Identifier: GPL-2.0-only */
/* What one request comes to, for its route's counters and the access log. */
#ifndef KMESH_GATE_STAT_H
#define KMESH_GATE_STAT_H

#include <kmesh/stat_types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session;

/* Of an exchange, from its beginning to its end. */
struct measure {
	uint64_t since;	  /* ns, CLOCK_MONOTONIC */
	uint64_t head_at; /* the response's head was there; 0: not yet */
	uint64_t request_bytes, response_bytes;
	char *line; /* the request's first; NULL: it is not for the access log */
	__be32 endpoint[4];
	__be16 endpoint_port;
	uint16_t status; /* 0: no response */
	uint32_t stat;
	uint8_t by; /* enum kmesh_stat_by */
};

struct kmesh_upstream;

/* stat.c */
int stat_open(void);
void stat_begin(struct measure *measure, uint32_t stat, uint8_t by);
void stat_begin_taken(struct measure *measure, uint32_t upstream);
void stat_head(struct measure *measure, unsigned int status); /* the response's is there */
void stat_end(struct measure *measure, const struct session *session);
/* What could not be made an exchange; the gate's answer has so many bytes. */
void stat_refused(const struct session *session, uint32_t stat, int status, size_t length);
/* A request that the kernel took, whose client has gone. */
void stat_unanswered(const struct session *session, uint32_t upstream);
void stat_verdict(int verdict); /* a head was not routed */

void stat_log_dropped(uint32_t lines);
void stat_overflow(enum kmesh_overflow which);
void stat_ejection(enum kmesh_ejection which);
void stat_ejected(uint32_t endpoints); /* that are out now */
uint64_t stat_route_name(uint32_t stat);

/* accesslog.c */
bool log_set(const char *one_in); /* false: that is no number */
void log_path(const char *control);
bool log_wants(void);
void log_head(struct measure *measure, const char *head, size_t length);
void log_taken(struct measure *measure, uint32_t upstream);
void log_write(const struct measure *measure, const struct session *session, uint64_t now);
void log_flush(void);

#endif
