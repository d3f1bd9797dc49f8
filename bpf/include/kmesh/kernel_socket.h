/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The address of a full socket in the kernel, to be read with bpf_probe_read_kernel(). The same as
 * bpf_skc_to_tcp_sock() gives for a TCP socket, which kernels built without BTF refuse to programs
 * ("invalid return type of func"), though the fields behind it can be had from their headers.
 */
#ifndef KMESH_KERNEL_SOCKET_H
#define KMESH_KERNEL_SOCKET_H

#include <linux/types.h>
#include <linux/bpf.h>

static __always_inline __u64 kmesh_kernel_socket(struct bpf_sock *sk)
{
	__u64 address = (__u64)(long)sk;

	/*
	 * Negated twice it is a number to the verifier, which may be kept anywhere: 5.10 lets no
	 * such pointer onto the stack of a map's update. Who may read the kernel may do this too
	 * (CAP_PERFMON).
	 */
	asm volatile("%0 = -%0\n\t%0 = -%0" : "+r"(address));
	return address;
}

#endif
