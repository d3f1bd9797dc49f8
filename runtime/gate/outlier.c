// SPDX-License-Identifier: GPL-2.0-only
/*
 * Outlier detection: an endpoint that fails so often in a row is left out for a while, the longer
 * the more often that happens. (Envoy: source/common/upstream/outlier_detection_impl.cc)
 */
#include "govern.h"
#include "stat.h"
#include <arpa/inet.h>
#include <string.h>

static void tell(const struct governed *governed, const struct member *member, const char *what)
{
	char text[INET6_ADDRSTRLEN];

	say("cluster %016llx: endpoint [%s]:%u %s", (unsigned long long)governed->cluster,
	    inet_ntop(AF_INET6, member->is->address, text, sizeof(text)), ntohs(member->is->port),
	    what);
}

static bool may_eject(const struct governed *governed)
{
	const struct kmesh_http_cluster *rules = &governed->rules;

	if (rules->flags & KMESH_CLUSTER_ALWAYS_ONE && !governed->ejected)
		return true;
	return (governed->ejected + 1) * 100ull <=
	       (uint64_t)rules->max_percent * rules->member_count;
}

static void eject(struct governed *governed, struct member *member, enum kmesh_ejection why)
{
	const struct kmesh_http_cluster *rules = &governed->rules;

	if (!may_eject(governed)) {
		stat_ejection(KMESH_EJECTION_REFUSED);
		return;
	}
	stat_ejection(why);
	tell(governed, member, "is ejected");
	member->past.ejected = true;
	member->past.ejected_at = loop_now;
	if ((uint64_t)member->past.times * rules->base_ms <
	    (uint64_t)rules->max_ms + rules->base_ms)
		governed->known += !member->past.times++;
	governed->ejected++;
	sets_changed(governed, member);
}

/* One more failure in a row; an endpoint that is out is not ejected again. */
static void count(struct governed *governed, struct member *member, uint32_t *row, uint32_t most,
		  enum kmesh_ejection why)
{
	if (++*row != most || member->past.ejected)
		return;
	eject(governed, member, why);
	*row = 0;
}

static void count_status(struct governed *governed, struct member *member, unsigned int status)
{
	const struct kmesh_http_cluster *rules = &governed->rules;

	if (status / 100 != 5) {
		member->past.failures = member->past.gateway_failures = 0;
		return;
	}
	if (status >= 502 && status <= 504)
		count(governed, member, &member->past.gateway_failures, rules->consecutive_gateway,
		      KMESH_EJECTED_GATEWAY);
	else
		member->past.gateway_failures = 0;
	count(governed, member, &member->past.failures, rules->consecutive_5xx, KMESH_EJECTED_5XX);
}

void outlier_answered(struct upstream *upstream, unsigned int status)
{
	struct pool *pool = upstream->pool;
	struct member *member =
		pool->governed ? governed_member(pool->governed, pool->key.address, pool->key.port)
			       : NULL;

	if (member)
		count_status(pool->governed, member, status);
}

void outlier_failed(struct governed *governed, const __be32 *address, __be16 port)
{
	struct member *member = governed ? governed_member(governed, address, port) : NULL;

	if (!member)
		return;
	if (governed->rules.flags & KMESH_CLUSTER_SPLIT)
		count(governed, member, &member->past.local_failures,
		      governed->rules.consecutive_local, KMESH_EJECTED_LOCAL);
	else
		count_status(governed, member, 503);
}

static void give_back(struct governed *governed, struct member *member)
{
	tell(governed, member, "is used again");
	member->past.ejected = false;
	member->past.returned_at = loop_now;
	member->past.failures = member->past.gateway_failures = member->past.local_failures = 0;
	governed->ejected--;
	sets_changed(governed, member);
}

/* Who has been in for an interval stays out less long the next time. */
static void look_at(struct governed *governed, struct member *member)
{
	const struct kmesh_http_cluster *rules = &governed->rules;
	uint64_t out = (uint64_t)rules->base_ms * member->past.times;

	if (out > rules->max_ms)
		out = rules->max_ms;
	if (member->past.ejected && loop_now - member->past.ejected_at >= out)
		give_back(governed, member);
	else if (!member->past.ejected && member->past.times &&
		 loop_now - member->past.returned_at >= rules->interval_ms)
		governed->known -= !--member->past.times;
}

void outlier_interval(struct governed *governed)
{
	if (loop_now - governed->interval_began < governed->rules.interval_ms)
		return;
	governed->interval_began = loop_now;
	if (!governed->ejected && !governed->known)
		return;
	for (uint32_t i = 0; i < governed->rules.member_count; i++)
		look_at(governed, &governed->members[i]);
}
