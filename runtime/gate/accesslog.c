// SPDX-License-Identifier: GPL-2.0-only
/*
 * Requests for the access log, as lines to whoever listens at a Unix socket beside the gate's own.
 * Nobody waits for anybody: what cannot be sent at once is dropped, and counted.
 *
 *	SINCE HEAD-NS END-NS BY STATUS REQUEST-BYTES RESPONSE-BYTES NETNS CLIENT SOURCE SERVICE
 *	ENDPOINT ROUTE METHOD TARGET VERSION
 *
 * is one line; numbers are decimal, addresses hexadecimal with their port, ROUTE is
 * CLIENT is the cookie of the client's socket, SOURCE the address that its namespace is known by,
 *ROUTE kmesh_route_stat.name, and the request's own line comes last, cut where it is long.
 */
#define _GNU_SOURCE
#include "stat.h"
#include "gate.h"
#include "maps.h"
#include "waypoint.h"
#include <kmesh/gate.h>
#include <kmesh/stat.h>
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PACKET	  16384
#define CLEANINGS 4 /* ticks: programs that still see the log on end meanwhile */
#define LINE	  (512 + KMESH_LOG_TEXT)

static struct sockaddr_un listens = {.sun_family = AF_UNIX};
static char packet[PACKET];
static size_t filled;
static uint32_t lines;
static int fd = -1;
static int cleanings = CLEANINGS;

/* Who reads the log listens beside the gate's socket, whichever gate that is. */
void log_path(const char *control)
{
	snprintf(listens.sun_path, sizeof(listens.sun_path), "%.*s.log",
		 (int)sizeof(listens.sun_path) - 5, control);
}

static void send_lines(void)
{
	if (!lines)
		return;
	if (fd < 0)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || sendto(fd, packet, filled, MSG_NOSIGNAL | MSG_DONTWAIT, (void *)&listens,
			     sizeof(listens)) < 0)
		stat_log_dropped(lines);
	filled = 0;
	lines = 0;
}

bool log_set(const char *one_in)
{
	char *end;
	unsigned long number = strtoul(one_in, &end, 10);

	if (end == one_in || *end || number > UINT32_MAX)
		return false;
	if (!number)
		send_lines();
	settings_shared->logs = number;
	cleanings = CLEANINGS;
	return true;
}

/* One in so many. */
bool log_wants(void)
{
	static uint32_t passed;
	uint32_t logs = settings_shared->logs;

	if (!logs || ++passed < logs)
		return false;
	passed = 0;
	return true;
}

static void keep(struct measure *measure, const char *head, size_t length)
{
	size_t size = 0;

	while (size < length && size < KMESH_LOG_TEXT && head[size] != '\r' && head[size] != '\n')
		size++;
	measure->line = strndup(head, size);
}

void log_head(struct measure *measure, const char *head, size_t length)
{
	if (log_wants())
		keep(measure, head, length);
}

/* The kernel kept its start; before the access log was on it did not. */
void log_taken(struct measure *measure, uint32_t upstream)
{
	struct kmesh_taken_head *found;

	if (!settings_shared->logs)
		return;
	found = gate_map_lookup(&taken_heads, &upstream);
	if (!found)
		return;
	gate_map_delete(&taken_heads, &upstream);
	if (found->length <= KMESH_LOG_TEXT && log_wants())
		keep(measure, found->text, found->length);
}

static void address(char *text, const __be32 *address, __be16 port)
{
	sprintf(text, "%08x%08x%08x%08x:%u", ntohl(address[0]), ntohl(address[1]),
		ntohl(address[2]), ntohl(address[3]), ntohs(port));
}

void log_write(const struct measure *measure, const struct session *session, uint64_t now)
{
	static const __be32 none[4];
	char source[48], service[48], endpoint[48];
	__be32 from[4];
	uint64_t head = measure->head_at > measure->since ? measure->head_at - measure->since : 0;

	if (filled + LINE > sizeof(packet))
		send_lines();
	if (!space_source(session->space, session->service, from))
		memcpy(from, none, sizeof(from));
	address(source, from, 0);
	address(service, session->service, session->service_port);
	address(endpoint, measure->endpoint, measure->endpoint_port);
	filled += snprintf(packet + filled, LINE,
			   "%" PRIu64 " %" PRIu64 " %" PRIu64 " %u %u %" PRIu64 " %" PRIu64
			   " %" PRIu64 " %" PRIu64 " %s %s %s %" PRIu64 " %s\n",
			   measure->since, head, now > measure->since ? now - measure->since : 0,
			   measure->by, measure->status, measure->request_bytes,
			   measure->response_bytes, session->space->cookie, session->cookie, source,
			   service, endpoint, (uint64_t)stat_route_name(measure->stat),
			   measure->line);
	lines++;
}

/* Twice a second. What the kernel kept of requests is of no use when there is no log. */
void log_flush(void)
{
	send_lines();
	if (settings_shared->logs || !cleanings)
		return;
	cleanings--;
	gate_map_empty(&taken_heads);
}
