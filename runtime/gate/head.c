// SPDX-License-Identifier: GPL-2.0-only
/*
 * Framing, RFC 9112, with no leniency: every line ends with CR LF, every name is a token with its
 * colon behind it, and what says how long the body is says it once. llhttp, which reads the request
 * afterwards, forgives some of that, and so may a waypoint, in other ways.
 */
#include "head.h"
#include "frame.h"
#include <string.h>
#include <strings.h>

#define MOST_DIGITS 18

struct head {
	bool has_length, is_chunked, is_old; /* HTTP/1.0 */
};

struct line {
	const char *start, *end; /* without CR LF */
};

static bool is_token(const char *at, const char *end)
{
	static const char others[] = "!#$%&'*+-.^_`|~";

	if (at == end)
		return false;
	for (; at < end; at++) {
		bool letter = (*at | 32) >= 'a' && (*at | 32) <= 'z';

		if (!letter && !(*at >= '0' && *at <= '9') && (!*at || !strchr(others, *at)))
			return false;
	}
	return true;
}

/* Text that no reader takes for a control; `spaces`: or for a separator. */
static bool is_text(const char *at, const char *end, bool spaces)
{
	for (; at < end; at++) {
		unsigned char byte = *at;

		if (byte < 32 ? byte != '\t' || !spaces : byte == 127)
			return false;
		if (!spaces && (byte == ' ' || byte > 127))
			return false;
	}
	return true;
}

static bool is_word(const struct line *text, const char *word)
{
	size_t length = strlen(word);

	return (size_t)(text->end - text->start) == length &&
	       !strncasecmp(text->start, word, length);
}

static enum head_kind next_line(const char **at, const char *end, struct line *line)
{
	const char *feed = memchr(*at, '\n', end - *at);
	const char *bare = memchr(*at, '\r', (feed ? feed : end) - *at);

	if (bare && bare + 1 < end && bare + 1 != feed)
		return HEAD_UNSURE;
	if (!feed) /* what no line can begin with need not be waited for */
		return is_text(*at, bare ? bare : end, true) ? HEAD_MORE : HEAD_UNSURE;
	if (!bare)
		return HEAD_UNSURE;
	*line = (struct line){.start = *at, .end = feed - 1};
	*at = feed + 1;
	return HEAD_PLAIN;
}

/* CONNECT and PRI begin another protocol, whatever the answer is. */
static bool read_request_line(const struct line *line, struct head *head)
{
	const char *space = memchr(line->start, ' ', line->end - line->start);
	struct line method = {.start = line->start, .end = space}, target;
	static const char version[] = "HTTP/1.";

	if (!space || line->end - space < 11 || line->end[-9] != ' ' ||
	    memcmp(line->end - 8, version, sizeof(version) - 1))
		return false;
	target = (struct line){.start = space + 1, .end = line->end - 9};
	head->is_old = line->end[-1] == '0';
	return (head->is_old || line->end[-1] == '1') && is_token(method.start, method.end) &&
	       !is_word(&method, "CONNECT") && !is_word(&method, "PRI") &&
	       target.start < target.end && is_text(target.start, target.end, false);
}

static bool read_length(const struct line *value, struct head *head)
{
	bool again = head->has_length;

	head->has_length = true;
	if (again || value->start == value->end || value->end - value->start > MOST_DIGITS)
		return false;
	for (const char *at = value->start; at < value->end; at++)
		if (*at < '0' || *at > '9')
			return false;
	return true;
}

static bool read_encoding(const struct line *value, struct head *head)
{
	bool again = head->is_chunked;

	head->is_chunked = true;
	return !again && is_word(value, "chunked");
}

static bool read_field(const struct line *line, struct head *head)
{
	const char *colon = memchr(line->start, ':', line->end - line->start);
	struct line name = {.start = line->start, .end = colon};
	struct line value = {.end = line->end};

	if (!colon || !is_token(name.start, name.end))
		return false;
	value.start = colon + 1;
	if (!is_text(value.start, value.end, true))
		return false;
	while (value.start < value.end && (*value.start == ' ' || *value.start == '\t'))
		value.start++;
	while (value.start < value.end && (value.end[-1] == ' ' || value.end[-1] == '\t'))
		value.end--;
	if (is_word(&name, "content-length"))
		return read_length(&value, head);
	if (is_word(&name, "transfer-encoding"))
		return read_encoding(&value, head);
	return true;
}

static enum head_kind read_head(const char *at, const char *end)
{
	struct head head = {};
	struct line line;
	enum head_kind kind = next_line(&at, end, &line);

	if (kind != HEAD_PLAIN)
		return kind;
	if (!read_request_line(&line, &head))
		return HEAD_UNSURE;
	while ((kind = next_line(&at, end, &line)) == HEAD_PLAIN) {
		if (line.start == line.end)
			return head.is_chunked && (head.has_length || head.is_old) ? HEAD_UNSURE
										   : HEAD_PLAIN;
		if (!read_field(&line, &head))
			return HEAD_UNSURE;
	}
	return kind;
}

/* Who reads the request afterwards must see one, too. */
static bool is_framed(const char *data, size_t length)
{
	struct frame frame;
	size_t used;

	frame_request(&frame);
	return frame_feed(&frame, data, length, &used) != FRAME_BAD && frame.headed;
}

enum head_kind head_judge(const char *data, size_t length)
{
	enum head_kind kind = read_head(data, data + length);

	return kind == HEAD_PLAIN && !is_framed(data, length) ? HEAD_UNSURE : kind;
}
