// SPDX-License-Identifier: GPL-2.0-only
/*
 * Path normalization as RFC 3986 (6.2.2) has it and Envoy does it: escapes of letters, digits and
 * -._~ are written as what they stand for, then . and .. are resolved. Escaped slashes, two
 * slashes and all else stay. Escapes of controls, what is no escape, backslashes and fragments
 * nobody resolves; nor . and .. with parameters (..;x), which mean what they mean without them to
 * some, and not to others.
 */
#include "normalise.h"
#include <kmesh/http/types.h>
#include <string.h>

static int digit(char letter)
{
	if (letter >= '0' && letter <= '9')
		return letter - '0';
	letter |= 32;
	return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* What the three bytes there stand for; -1: for nothing. */
static int escaped(const char *at, const char *end)
{
	int high = end - at > 2 ? digit(at[1]) : -1, low = high < 0 ? -1 : digit(at[2]);

	return low < 0 ? -1 : high << 4 | low;
}

static bool is_unreserved(int byte)
{
	return ((byte | 32) >= 'a' && (byte | 32) <= 'z') || (byte >= '0' && byte <= '9') ||
	       byte == '-' || byte == '.' || byte == '_' || byte == '~';
}

static bool can_be_decoded(const char *at, const char *end)
{
	for (; at < end; at++) {
		int byte = *at == '%' ? escaped(at, end) : ' ';

		if (byte < ' ' || byte == 127 || *at == '\\' || *at == '#')
			return false;
	}
	return true;
}

static size_t decode(char *to, const char *path, size_t size)
{
	const char *start = to;

	for (const char *at = path, *end = path + size; at < end; at++) {
		int byte = *at == '%' ? escaped(at, end) : -1;

		*to++ = is_unreserved(byte) ? byte : *at;
		if (is_unreserved(byte))
			at += 2;
	}
	return to - start;
}

/* Segment by segment, onto what is there of the path so far, which ends with a slash; 0: it cannot.
 */
static size_t resolve(char *path, size_t size)
{
	size_t made = 1;

	for (size_t at = 1; at < size;) {
		const char *slash = memchr(path + at, '/', size - at);
		size_t length = slash ? (size_t)(slash - path) - at : size - at;
		const char *name = path + at, *rest = memchr(name, ';', length);
		size_t named = rest ? (size_t)(rest - name) : length;
		bool is_here = named == 1 && name[0] == '.';
		bool is_above = named == 2 && name[0] == '.' && name[1] == '.';

		if ((is_here || is_above) && rest)
			return 0;
		if (is_above) {
			if (made > 1)
				made--;
			while (path[made - 1] != '/')
				made--;
		} else if (!is_here) {
			memmove(path + made, name, length);
			made += length;
			if (slash)
				path[made++] = '/';
		}
		at += length + 1;
	}
	return made;
}

bool normalise(char *head, size_t length)
{
	static char made[KMESH_HTTP_HEAD_MAX];
	char *feed = memchr(head, '\n', length), *path, *end, *colon;
	size_t before, after, gap;

	path = feed ? memchr(head, ' ', feed - head) : NULL;
	colon = path ? memchr(feed, ':', head + length - feed) : NULL;
	if (!colon || feed[1] == '\r' || *++path != '/')
		return false; /* without a header there is no place for blanks */
	for (end = path; *end != ' ' && *end != '?'; end++)
		;
	before = end - path;
	if (before > sizeof(made) || !can_be_decoded(path, end))
		return false;
	after = resolve(made, decode(made, path, before));
	if (!after)
		return false;
	memcpy(path, made, after);
	gap = before - after;
	memmove(end - gap, end, colon + 1 - end);
	memset(colon + 1 - gap, ' ', gap);
	return gap;
}
