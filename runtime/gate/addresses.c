// SPDX-License-Identifier: GPL-2.0-only
/* By which address others know a namespace's workload: asked of the kernel, and kept for a while.
 */
#include "waypoint.h"
#include <arpa/inet.h>
#include <kmesh/maps.h>
#include <linux/rtnetlink.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KNOWN_SECONDS 5
#define AGAIN_MS      200 /* after an answer that was none */

enum { NOTHING, AN_ADDRESS, AN_IDENTITY };

/* The best so far of either family: one that is a workload's, else any. */
struct found {
	__be32 addresses[2][SPACE_SOURCES][4];
	uint32_t count[2];
	int what[2];
	bool torn;
};

static bool is_known(const __be32 *address)
{
	struct kmesh_source_key key;

	memcpy(key.address, address, sizeof(key.address));
	return gate_map_lookup(&source_tlvs, &key);
}

static void consider(struct found *found, const struct ifaddrmsg *about, const void *data)
{
	int family = about->ifa_family == AF_INET6, what;
	__be32 address[4] = {0, 0, htonl(0xffff)};

	if (about->ifa_scope != RT_SCOPE_UNIVERSE)
		return;
	memcpy(family ? address : address + 3, data, family ? 16 : 4);
	what = is_known(address) ? AN_IDENTITY : AN_ADDRESS;
	if (what < found->what[family])
		return;
	if (what > found->what[family])
		found->count[family] = 0;
	found->what[family] = what;
	if (found->count[family] < SPACE_SOURCES)
		memcpy(found->addresses[family][found->count[family]], address, sizeof(address));
	found->count[family]++;
}

/* IFA_LOCAL is the near end of a point-to-point link, and what IPv4 always has. */
static void read_address(struct found *found, struct nlmsghdr *message)
{
	struct ifaddrmsg *about = NLMSG_DATA(message);
	int left = IFA_PAYLOAD(message);
	const void *data = NULL;

	for (struct rtattr *part = IFA_RTA(about); RTA_OK(part, left); part = RTA_NEXT(part, left))
		if (part->rta_type == IFA_LOCAL || (part->rta_type == IFA_ADDRESS && !data))
			data = RTA_DATA(part);
	if (data && (about->ifa_family == AF_INET || about->ifa_family == AF_INET6))
		consider(found, about, data);
}

/* False: nothing more comes; `whole` then, if that was all. */
static bool read_some(struct found *found, int fd, bool *whole)
{
	static char answer[32768] __attribute__((aligned(8)));
	int got = recv(fd, answer, sizeof(answer), 0);

	if (got <= 0)
		return false;
	for (struct nlmsghdr *message = (void *)answer; NLMSG_OK(message, (unsigned int)got);
	     message = NLMSG_NEXT(message, got)) {
		if (message->nlmsg_flags & NLM_F_DUMP_INTR)
			found->torn = true; /* something changed meanwhile */
		if (message->nlmsg_type != RTM_NEWADDR) {
			*whole = message->nlmsg_type == NLMSG_DONE && !found->torn;
			return false;
		}
		read_address(found, message);
	}
	return true;
}

static bool ask(struct space *space, struct found *found)
{
	bool whole = false;
	struct {
		struct nlmsghdr head;
		struct ifaddrmsg about;
	} question = {.head = {.nlmsg_len = sizeof(question),
			       .nlmsg_type = RTM_GETADDR,
			       .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	int fd = space_netlink(space);

	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		scarce_squeeze();
	if (fd < 0)
		return false;
	if (send(fd, &question, sizeof(question), 0) == sizeof(question))
		while (read_some(found, fd, &whole))
			;
	close(fd);
	return whole;
}

static void look(struct space *space)
{
	struct found found = {};

	if (space->asked && loop_now - space->asked <= KNOWN_SECONDS * 1000)
		return;
	space->asked = loop_now;
	if (!ask(space, &found)) {
		/* What was known holds on: an address of a namespace hardly ever changes. */
		space->asked -= KNOWN_SECONDS * 1000 - AGAIN_MS;
		return;
	}
	space->sources_known = true;
	for (int i = 0; i < 2; i++)
		space->has_workload[i] = found.what[i] == AN_IDENTITY;
	memcpy(space->source_count, found.count, sizeof(found.count));
	memcpy(space->sources, found.addresses, sizeof(found.addresses));
}

bool space_sources(struct space *space, const __be32 *like, const __be32 (**addresses)[4],
		   uint32_t *count)
{
	int family = like[0] || like[1] || like[2] != htonl(0xffff);

	look(space);
	if (!space->source_count[family])
		family = !family;
	*addresses = space->sources[family];
	*count = space->source_count[family];
	if (*count <= SPACE_SOURCES)
		return space->sources_known;
	*count = SPACE_SOURCES;
	return false;
}

bool space_is_nobodys(struct space *space)
{
	look(space);
	return space->sources_known && !space->has_workload[0] && !space->has_workload[1];
}

bool space_source(struct space *space, const __be32 *like, __be32 *address)
{
	const __be32(*addresses)[4];
	uint32_t count;

	space_sources(space, like, &addresses, &count);
	if (count)
		memcpy(address, addresses[0], sizeof(addresses[0]));
	return count;
}
