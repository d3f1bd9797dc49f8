// SPDX-License-Identifier: GPL-2.0-only
/*
 * The socket map into which the kernel puts every connection that the gate makes, so that it can
 * send requests there. It is pinned beside the tables, under a name with the digest of its layout
 * (runtime/kernel/sockets.py); after an upgrade there may be two for a while.
 */
#include "gate.h"
#include "maps.h"
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define MOST 4

static const char name[] = "upstreams-";
static int enrolled[MOST];
static int enrolled_count;

static void open_one(const char *directory, const char *file)
{
	union bpf_attr attributes = {};
	char path[1024];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	attributes.pathname = (uint64_t)(uintptr_t)path;
	fd = gate_bpf(BPF_OBJ_GET, &attributes);
	if (fd >= 0 && enrolled_count < MOST)
		enrolled[enrolled_count++] = fd;
}

int enrolled_open(const char *pins)
{
	char path[512];
	struct dirent *entry;
	DIR *directory;

	snprintf(path, sizeof(path), "%s/../sockets", pins);
	directory = opendir(path);
	while (directory && (entry = readdir(directory)))
		if (!strncmp(entry->d_name, name, sizeof(name) - 1))
			open_one(path, entry->d_name);
	if (directory)
		closedir(directory);
	if (!enrolled_count)
		say("cannot open %s/%s*", path, name);
	return enrolled_count ? 0 : -1;
}

static bool has_program(int map, enum bpf_attach_type type)
{
	union bpf_attr attributes = {};

	attributes.query.target_fd = map;
	attributes.query.attach_type = type;
	return gate_bpf(BPF_PROG_QUERY, &attributes) || attributes.query.prog_cnt;
}

/*
 * What a verdict let through waits in queues of the map's, and would be lost. Since 5.18,
 * 748cd5729ac7; a kernel that does not tell may have such a program.
 */
bool enrolled_may_leave(void)
{
	for (int i = 0; i < enrolled_count; i++)
		if (has_program(enrolled[i], BPF_SK_SKB_STREAM_PARSER) ||
		    has_program(enrolled[i], BPF_SK_SKB_STREAM_VERDICT) ||
		    has_program(enrolled[i], BPF_SK_SKB_VERDICT))
			return false;
	return true;
}

/* It is an ordinary socket from then on. */
void enrolled_leave(uint64_t cookie)
{
	for (int i = 0; i < enrolled_count; i++) {
		union bpf_attr attributes = {};

		attributes.map_fd = enrolled[i];
		attributes.key = (uint64_t)(uintptr_t)&cookie;
		gate_bpf(BPF_MAP_DELETE_ELEM, &attributes);
	}
}
