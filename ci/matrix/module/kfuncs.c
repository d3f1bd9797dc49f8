// SPDX-License-Identifier: GPL-2.0-only
/*
 * Functions for BPF programs, of the names and the meaning that Kmesh's kernel module has on
 * openEuler: a request's head is parsed, and what it says is compared with strings.
 *
 * What was parsed is kept for each CPU, as the functions that compare take no context. A program
 * does not leave its CPU, yet another task's may run there in between: what it finds is not its
 * own, and so nothing.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/filter.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <net/tcp.h>

#include "kmesh_kfuncs.h"

#define FIELDS 64 /* "method", "URI", "version" and headers */
#define NEEDLE 5  /* bytes that bpf_km_header_strnstr_func() looks for: it is told no size */

struct text {
	const char *at;
	u32 size;
};

struct header {
	struct task_struct *owner;
	u32 count;
	struct text names[FIELDS];
	struct text values[FIELDS];
};

static DEFINE_PER_CPU(struct header, parsed);

static bool add(struct header *header, struct text name, struct text value)
{
	u32 i;

	/* Names are told apart by case, and the last one counts. */
	for (i = 0; i < header->count; i++) {
		if (header->names[i].size == name.size &&
		    !memcmp(header->names[i].at, name.at, name.size))
			break;
	}
	if (i == FIELDS)
		return false;
	header->names[i] = name;
	header->values[i] = value;
	if (i == header->count)
		header->count++;
	return true;
}

/* Up to a byte, and behind it; false when it is not there. */
static bool take(struct text *from, char until, struct text *taken)
{
	const char *found = memchr(from->at, until, from->size);

	if (!found)
		return false;
	taken->at = from->at;
	taken->size = found - from->at;
	from->size -= taken->size + 1;
	from->at = found + 1;
	return true;
}

static void trim(struct text *text)
{
	while (text->size && text->at[0] == ' ') {
		text->at++;
		text->size--;
	}
	while (text->size && (text->at[text->size - 1] == ' ' || text->at[text->size - 1] == '\r'))
		text->size--;
}

static bool is_upper(const struct text *text)
{
	for (u32 i = 0; i < text->size; i++) {
		if (text->at[i] < 'A' || text->at[i] > 'Z')
			return false;
	}
	return text->size;
}

static bool parse(struct header *header, struct text rest)
{
	static const struct text method = {"method", 6}, uri = {"URI", 3}, version = {"version", 7};
	struct text line, part;

	header->count = 0;
	if (!take(&rest, '\n', &line) || !line.size || line.at[line.size - 1] != '\r')
		return false;
	line.size--;
	if (!take(&line, ' ', &part) || !is_upper(&part) || !add(header, method, part))
		return false;
	if (!take(&line, ' ', &part) || !part.size || !add(header, uri, part))
		return false;
	if (line.size != 8 || memcmp(line.at, "HTTP/1.1", 8) || !add(header, version, line))
		return false;
	while (take(&rest, '\n', &line)) {
		if (line.size == 1 && line.at[0] == '\r')
			return true;
		if (!take(&line, ':', &part) || !part.size)
			return false;
		trim(&part);
		trim(&line);
		if (!add(header, part, line))
			return false;
	}
	return false;
}

static const struct text *value_of(const char *key, int key_size)
{
	struct header *header = this_cpu_ptr(&parsed);
	size_t size = strnlen(key, key_size);

	if (header->owner != current)
		return NULL;
	for (u32 i = 0; i < header->count; i++) {
		if (header->names[i].size == size && !memcmp(header->names[i].at, key, size))
			return &header->values[i];
	}
	return NULL;
}

void kmesh_forget_header(void)
{
	struct header *header = this_cpu_ptr(&parsed);

	if (header->owner == current)
		header->owner = NULL;
}

static struct bpf_sock_addr_kern *context(const void *handed, int size)
{
	return size < (int)sizeof(void *) ? NULL : ((const struct bpf_mem_ptr *)handed)->ptr;
}

__bpf_kfunc_start_defs();

__bpf_kfunc int bpf_parse_header_msg_func(void *src, int src__sz)
{
	struct bpf_sock_addr_kern *ctx = context(src, src__sz);
	struct header *header = this_cpu_ptr(&parsed);
	const struct bpf_mem_ptr *message = ctx ? ctx->t_ctx : NULL;

	if (!message)
		return PROTO_UNKNOW;
	header->owner = NULL;
	barrier();
	if (!parse(header, (struct text){message->ptr, message->size}))
		return PROTO_UNKNOW;
	header->owner = current;
	return PROTO_HTTP_1_1 | MSG_REQUEST << 8;
}

__bpf_kfunc int bpf_km_header_strncmp_func(const char *key, int key__sz, const char *target,
					   int target__sz, int opt)
{
	const struct text *value = value_of(key, key__sz);
	size_t size = strnlen(target, target__sz);

	if (!value || size > value->size || (opt != STRNCMP_PREFIX && opt != STRNCMP_EXACT))
		return 1;
	if (opt == STRNCMP_EXACT && size != value->size)
		return 1;
	return memcmp(value->at, target, size) != 0;
}

__bpf_kfunc int bpf_km_header_strnstr_func(void *ctx, int ctx__sz, const char *key, int key__sz,
					   const char *subptr)
{
	const struct text *value = value_of(key, key__sz);
	char needle[NEEDLE];
	size_t size;

	/* The verifier knows of one byte of it. */
	if (!value || copy_from_kernel_nofault(needle, subptr, NEEDLE))
		return 0;
	size = strnlen(needle, NEEDLE);
	for (u32 i = 0; size <= value->size && i <= value->size - size; i++) {
		if (!memcmp(value->at + i, needle, size))
			return 1;
	}
	return 0;
}

__bpf_kfunc int bpf_setsockopt_func(void *bpf_mem, int bpf_mem__sz, int optname, const char *optval,
				    int optval__sz)
{
	struct bpf_sock_addr_kern *ctx = context(bpf_mem, bpf_mem__sz);

	if (!ctx || !ctx->sk || optname != TCP_ULP)
		return -EINVAL;
	/* Its lock is not taken: a BPF program runs, so it is held (sockopt_lock_sock()). */
	return tcp_prot.setsockopt(ctx->sk, SOL_TCP, optname, KERNEL_SOCKPTR((void *)optval),
				   optval__sz);
}

__bpf_kfunc int bpf_getsockopt_func(void *bpf_mem, int bpf_mem__sz, int optname, char *optval,
				    int optval__sz)
{
	struct bpf_sock_addr_kern *ctx = context(bpf_mem, bpf_mem__sz);

	if (!ctx || !ctx->sk || optname != TCP_ULP || optval__sz < 1 ||
	    !inet_csk(ctx->sk)->icsk_ulp_ops)
		return -EINVAL;
	strscpy(optval, inet_csk(ctx->sk)->icsk_ulp_ops->name, optval__sz);
	return 0;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(kmesh_kfuncs)
BTF_ID_FLAGS(func, bpf_parse_header_msg_func)
BTF_ID_FLAGS(func, bpf_km_header_strncmp_func)
BTF_ID_FLAGS(func, bpf_km_header_strnstr_func)
BTF_ID_FLAGS(func, bpf_setsockopt_func)
BTF_ID_FLAGS(func, bpf_getsockopt_func)
BTF_KFUNCS_END(kmesh_kfuncs)

static const struct btf_kfunc_id_set kmesh_kfunc_set = {
	.owner = THIS_MODULE,
	.set = &kmesh_kfuncs,
};

int kmesh_register_kfuncs(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, &kmesh_kfunc_set);
}
