// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's reader and router, compiled for here: as a library, and as a program that is given
 * input after input, each in memory of just its size, for the sanitizers to watch.
 */
#include <kmesh/http/match.h>
#include <stdio.h>
#include <stdlib.h>

int native_route(const __u8 *data, __u32 size, const struct kmesh_http_grammar *grammar,
		 const struct kmesh_http_cell *cells, __u32 count, struct kmesh_http_head *head,
		 struct kmesh_http_outcome *outcome)
{
	const struct kmesh_http_input in = {.data = data, .end = data + size};
	kmesh_http_graph graph = {.cells = cells, .count = count};
	int verdict = kmesh_http_parse(&in, grammar, head);

	if (verdict != KMESH_HTTP_OK)
		return verdict;
	return kmesh_http_match(&in, head, &graph, outcome);
}

static void *whole(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	void *data;

	if (!file || fseek(file, 0, SEEK_END))
		exit(2);
	*size = ftell(file);
	rewind(file);
	data = malloc(*size);
	if (!data || fread(data, 1, *size, file) != *size)
		exit(2);
	fclose(file);
	return data;
}

/* GRAMMAR GRAPH < inputs: each a 32-bit length and the bytes. Prints verdict and route of each. */
int main(int count, char **paths)
{
	size_t moves, cells;
	const struct kmesh_http_grammar *grammar;
	const struct kmesh_http_cell *graph;
	__u32 size;

	if (count != 3)
		return 2;
	grammar = whole(paths[1], &moves);
	graph = whole(paths[2], &cells);
	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		struct kmesh_http_outcome outcome = {0};
		struct kmesh_http_head head;
		__u8 *data = malloc(size);
		int verdict;

		if (fread(data, 1, size, stdin) != size)
			return 2;
		verdict = native_route(data, size, grammar, graph, cells / sizeof(*graph), &head,
				       &outcome);
		printf("%d %u\n", verdict, verdict ? 0 : outcome.route);
		free(data);
	}
	free((void *)grammar);
	free((void *)graph);
	return 0;
}
