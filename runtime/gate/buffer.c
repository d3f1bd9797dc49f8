// SPDX-License-Identifier: GPL-2.0-only
/* Bytes that wait. A buffer has memory only while it holds any. */
#include "gate.h"
#include <stdlib.h>
#include <string.h>

static void make_room(struct buffer *buffer, size_t length)
{
	uint32_t held = buffer_length(buffer);
	size_t size = buffer->size ? buffer->size : 1024;

	if (buffer->end + length <= buffer->size)
		return;
	if (held + length <= buffer->size) {
		memmove(buffer->data, buffer->data + buffer->start, held);
	} else {
		char *grown;

		while (size < held + length)
			size *= 2;
		grown = malloc(size);
		if (!grown)
			abort();
		if (held)
			memcpy(grown, buffer->data + buffer->start, held);
		free(buffer->data);
		buffer->data = grown;
		buffer->size = size;
	}
	buffer->start = 0;
	buffer->end = held;
}

void buffer_append(struct buffer *buffer, const void *data, size_t length)
{
	if (!length)
		return;
	make_room(buffer, length);
	memcpy(buffer->data + buffer->end, data, length);
	buffer->end += length;
}

void buffer_consume(struct buffer *buffer, size_t length)
{
	buffer->start += length;
	if (buffer->start == buffer->end)
		buffer_drop(buffer);
}

void buffer_drop(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){};
}
