/* SPDX-License-Identifier: GPL-2.0-only */
/* What the two halves of the module share. */
#ifndef KMESH_KFUNCS_H
#define KMESH_KFUNCS_H

#include <linux/types.h>

struct bpf_sock_addr_kern;

/* A message on its way: what `t_ctx` of a deferred connect() points to, and how programs hand their ctx over. */
struct bpf_mem_ptr {
	void *ptr;
	__u32 size;
};

/* What bpf_parse_header_msg_func() returns: protocol, and kind of message << 8. */
#define PROTO_UNKNOW   0
#define PROTO_HTTP_1_1 1
#define MSG_REQUEST    1

/* `opt` of bpf_km_header_strncmp_func(). */
#define STRNCMP_PREFIX 1
#define STRNCMP_EXACT  2

int kmesh_register_kfuncs(void);
int kmesh_register_defer(void);
void kmesh_unregister_defer(void);

/* The calling task has done with what it has parsed; without this, its memory would be looked at when it is gone. */
void kmesh_forget_header(void);

#endif
