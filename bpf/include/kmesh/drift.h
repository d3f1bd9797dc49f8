/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between kernels that the programs must know of, and nowhere else. Each shim says
 * since when the kernel has the thing (commit) and when the shim may go. What a shim calls is named
 * in the section .kmesh.optional: the object does without it, so the prober must not ask for it.
 */
#ifndef KMESH_DRIFT_H
#define KMESH_DRIFT_H

#include <kmesh/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The oldest kernel is 5.10. */
/* A section of its own, as clang puts constants that it makes up into .rodata. */
const volatile struct kmesh_config kmesh_config SEC(".rodata.config") = {};

/*
 * bpf_set_retval() in sock_addr programs: a refused connect() says ECONNREFUSED, as the network
 * would, instead of EPERM.
 * since: 6.1, dea6a4e17013 ("bpf: expose bpf_{g,s}et_retval to more cgroup hooks")
 * without: EPERM. The loader sets can_set_retval when the kernel's BTF has the helper under the
 * number that we call (vendors shift numbers) and a program that calls it loads.
 * delete: when 6.1 is the oldest.
 */
static const char kmesh_optional_set_retval[] __attribute__((used, section(".kmesh.optional"))) =
	"set_retval";

#define KMESH_ECONNREFUSED 111

static __always_inline int kmesh_refuse(void)
{
	if (kmesh_config.can_set_retval)
		bpf_set_retval(-KMESH_ECONNREFUSED);
	return 0;
}

#endif
