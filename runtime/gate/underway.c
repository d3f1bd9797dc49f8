// SPDX-License-Identifier: GPL-2.0-only
/* Whether a response that went home is there: asked of the kernel (bpf/enhanced/underway.bpf.c). */
#include "gate.h"
#include "maps.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ETHERNET_HEADER 14

static int program = -1;

int underway_open(const char *pins)
{
	union bpf_attr attributes = {};
	char path[512];

	snprintf(path, sizeof(path), "%s/kmesh_ask_underway", pins);
	attributes.pathname = (uint64_t)(uintptr_t)path;
	program = gate_bpf(BPF_OBJ_GET, &attributes);
	if (program < 0)
		say("cannot open %s: %s", path, strerror(errno));
	return program < 0 ? -1 : 0;
}

/* What cannot be asked is taken to be so: somebody waits too long rather than too short. */
bool underway(uint32_t slot)
{
	char packet[ETHERNET_HEADER + sizeof(slot)] = {};
	union bpf_attr attributes = {};

	memcpy(packet + ETHERNET_HEADER, &slot, sizeof(slot));
	attributes.test.prog_fd = program;
	attributes.test.data_in = (uint64_t)(uintptr_t)packet;
	attributes.test.data_size_in = sizeof(packet);
	return gate_bpf(BPF_PROG_TEST_RUN, &attributes) || attributes.test.retval;
}
