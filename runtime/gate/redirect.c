// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a redirect leads: as Envoy writes it, byte by byte (source/common/http/utility.cc,
 * newUri(); source/common/router/config_impl.cc, finalizePathHeader()).
 */
#define _GNU_SOURCE
#include "answers.h"
#include "gate.h"
#include <string.h>
#include <strings.h>

struct piece {
	const char *data;
	size_t size;
};

static struct piece piece_at(const char *head, const struct kmesh_http_head *parsed, int place)
{
	return (struct piece){head + parsed->start[place],
			      parsed->end[place] - parsed->start[place]};
}

static struct piece piece_of(const char *text)
{
	return (struct piece){text, strlen(text)};
}

static bool is(struct piece piece, const char *text)
{
	return piece.size == strlen(text) && !strncasecmp(piece.data, text, piece.size);
}

/* The value of the one header of that name; empty with none, or with several. The head is known to
 * have no line that is anything but NAME:VALUE. */
static struct piece header_of(const char *head, size_t length, const char *name)
{
	const char *end = head + length, *line = memchr(head, '\n', length);
	struct piece found = {"", 0};
	size_t size = strlen(name);
	int count = 0;

	for (; line && ++line < end; line = memchr(line, '\n', end - line)) {
		const char *stop = memchr(line, '\r', end - line), *start = line + size + 1;

		if (!stop || start > stop || line[size] != ':' || strncasecmp(line, name, size))
			continue;
		while (start < stop && (*start == ' ' || *start == '\t'))
			start++;
		while (stop > start && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		found = (struct piece){start, stop - start};
		count++;
	}
	return count == 1 ? found : (struct piece){"", 0};
}

/* The request's host, without a port that is another's or the one of the scheme it leaves. */
static struct piece host_of(struct piece host, struct piece scheme, bool new_port,
			    struct piece protocol)
{
	const char *colon = memrchr(host.data, ':', host.size);
	bool goes = new_port;
	struct piece port;

	if (!colon || (host.data[0] == '[' && colon[-1] != ']'))
		return host;
	port = (struct piece){colon, host.data + host.size - colon};
	if (scheme.size != protocol.size || memcmp(scheme.data, protocol.data, scheme.size)) {
		goes |= is(protocol, "https") && is(port, ":443");
		goes |= is(protocol, "http") && is(port, ":80");
	}
	if (goes)
		host.size = colon - host.data;
	return host;
}

static char uri[ANSWERS_LOCATION];
static size_t used;

static void add(struct piece piece)
{
	if (piece.size > sizeof(uri) - used)
		piece.size = sizeof(uri) - used;
	memcpy(uri + used, piece.data, piece.size);
	used += piece.size;
}

static struct piece query_of(struct piece target)
{
	const char *mark = memchr(target.data, '?', target.size);

	return mark ? (struct piece){mark, target.data + target.size - mark}
		    : (struct piece){"", 0};
}

static void add_path(const struct kmesh_route *route, struct piece path, struct piece target)
{
	struct piece query = query_of(target), request = {"", 0};
	bool strips = route->flags & KMESH_ROUTE_STRIP_QUERY;
	struct piece cut;

	if (route->flags & KMESH_ROUTE_PATH) {
		if (memchr(path.data, '?', path.size)) {
			add(path); /* its own query, which is never stripped */
			return;
		}
	} else if (route->flags & KMESH_ROUTE_PREFIX) {
		size_t whole = target.size - query.size;
		size_t gone = route->matched < whole ? route->matched : whole;

		request = (struct piece){target.data + gone, whole - gone};
	} else {
		path = (struct piece){"", 0};
		request = (struct piece){target.data, target.size - query.size};
	}
	cut = query_of(path);
	if (strips && cut.size) {
		path.size -= cut.size;
		add(path);
		return;
	}
	add(path);
	add(request);
	if (!strips)
		add(query);
}

/* `texts`: scheme, host, port and path of the route. */
size_t redirect_write(const struct kmesh_route *route, const char *texts, const char *head,
		      const struct kmesh_http_head *parsed, const char **location)
{
	struct piece protocol = header_of(head, parsed->length, "x-forwarded-proto");
	struct piece target = piece_at(head, parsed, KMESH_HTTP_TARGET), parts[4], scheme;

	for (int i = 0; i < 4; i++) {
		parts[i] = piece_of(texts);
		texts += parts[i].size + 1;
	}
	scheme = parts[0];
	if (!scheme.size)
		scheme = piece_of(is(protocol, "https") ? "https" : "http");
	if (!protocol.size)
		protocol = piece_of("http");
	used = 0;
	add(scheme);
	add(piece_of("://"));
	add(parts[1].size ? parts[1]
			  : host_of(piece_at(head, parsed, KMESH_HTTP_AUTHORITY), scheme,
				    parts[2].size, protocol));
	add(parts[2]);
	add_path(route, parts[3], target);
	*location = uri;
	return used;
}
