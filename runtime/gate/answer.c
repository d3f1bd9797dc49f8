// SPDX-License-Identifier: GPL-2.0-only
/* Responses that the gate gives itself. */
#include "gate.h"
#include <stdio.h>
#include <string.h>

/* RFC 9110, 6.4.1: whatever is said of their length, these have no content. */
static bool has_no_content(int status)
{
	return status == 204 || status == 304;
}

/* Text is added as far as there is room for it, and `*at` never passes `size`. */
static void add(char *text, size_t size, size_t *at, const void *data, size_t length)
{
	if (length > size - *at)
		length = size - *at;
	memcpy(text + *at, data, length);
	*at += length;
}

static void add_text(char *text, size_t size, size_t *at, const char *line)
{
	add(text, size, at, line, strlen(line));
}

/* The bytes written: never more than there is room for. */
size_t answer_write(char *text, size_t size, int status, const char *reason,
		    const struct reply *reply, bool head, bool closes)
{
	const char *body = reply && reply->body ? reply->body : "";
	size_t length = reply && reply->body ? reply->body_size : 0, at = 0;
	char line[512], own[256];

	if (!length && reason) {
		body = own;
		snprintf(own, sizeof(own), "%s\n", reason);
		length = strlen(own);
	}
	snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\ndate: %s\r\n", status,
		 status_phrase(status), clock_date());
	add_text(text, size, &at, line);
	if (reply && reply->location) {
		add_text(text, size, &at, "location: ");
		add(text, size, &at, reply->location, reply->location_size);
		add_text(text, size, &at, "\r\n");
	}
	if (!has_no_content(status)) {
		snprintf(line, sizeof(line), "content-length: %zu\r\n%s", length,
			 length ? "content-type: text/plain\r\n" : "");
		add_text(text, size, &at, line);
	}
	if (reply && reply->headers)
		add_text(text, size, &at, reply->headers);
	if (reason) {
		snprintf(line, sizeof(line), "x-kmesh-reason: %s\r\n", reason);
		add_text(text, size, &at, line);
	}
	add_text(text, size, &at, closes ? "connection: close\r\n\r\n" : "\r\n");
	if (!head && !has_no_content(status))
		add(text, size, &at, body, length);
	return at;
}
