// SPDX-License-Identifier: GPL-2.0-only
/* Responses that the gate gives itself. */
#include "gate.h"
#include <stdio.h>

static const char *phrase(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 431:
		return "Request Header Fields Too Large";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	default:
		return "Kmesh";
	}
}

/* The bytes written: never more than there is room for. */
size_t answer_write(char *text, size_t size, int status, const char *reason, bool head, bool closes)
{
	char body[256];
	int length = 0, written;

	if (reason)
		length = snprintf(body, sizeof(body), "%s\n", reason);
	if (length >= (int)sizeof(body))
		length = sizeof(body) - 1;
	written = snprintf(text, size, "HTTP/1.1 %d %s\r\ncontent-length: %d\r\n%s%s%s%s%s\r\n",
			   status, phrase(status), length,
			   length ? "content-type: text/plain\r\n" : "",
			   reason ? "x-kmesh-reason: " : "", reason ? reason : "",
			   reason ? "\r\n" : "", closes ? "connection: close\r\n" : "");
	if (!head && length && written < (int)size)
		written += snprintf(text + written, size - written, "%s", body);
	return written < (int)size ? written : size - 1;
}
