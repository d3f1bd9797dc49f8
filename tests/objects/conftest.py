# SPDX-License-Identifier: Apache-2.0
"""Small objects compiled for the tests, so that the inspector is tried on what clang really writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.process import run

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct sock {
	int sk_sndbuf;
	int sk_wmem_queued;
} __attribute__((preserve_access_index));
struct tcp_sock___old {
	unsigned int rcv_nxt;
	unsigned int copied_seq;
} __attribute__((preserve_access_index));

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} clients SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, 8);
	__uint(value_size, 24);
} pointers SEC(".maps");

const volatile int port = 3;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;

static __attribute__((noinline)) int look_up(__u64 key)
{
	__u64 *value = bpf_map_lookup_elem(&pointers, &key);

	return value ? (int)*value : 0;
}

SEC("sk_msg")
int route(struct sk_msg_md *msg)
{
	__u64 key = look_up(port);
	struct tcp_sock___old *tcp = (void *)key;

	if (bpf_core_field_exists(tcp->copied_seq))
		key += BPF_CORE_READ(tcp, copied_seq);
	key += BPF_CORE_READ((struct sock *)tcp, sk_sndbuf);
	key += BPF_CORE_READ(tcp, rcv_nxt);
	return bpf_msg_redirect_hash(msg, &clients, &key, 0);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
#ifdef KFUNC
	struct task_struct *task = bpf_task_from_pid(1);

	if (task)
		bpf_task_release(task);
#endif
	return look_up(1) < 2;
}
"""

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_bpf(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a source text: `compile_bpf(text, "-DKFUNC", target="bpf", debug=True)`."""
    directory = tmp_path_factory.mktemp("bpf")
    count = 0

    def compile_text(
        text: str, *flags: str, target: str = "bpf", debug: bool = True, include: bool = True
    ) -> Path:
        nonlocal count
        count += 1
        source, output = directory / f"{count}.bpf.c", directory / f"{count}.bpf.o"
        source.write_text(text)
        where = ["-I/usr/include/x86_64-linux-gnu"] if include else []
        argv = ["clang", "-O2", "-target", target, *where, *flags, "-c", str(source)]
        run([*argv, *(["-g"] if debug else []), "-o", str(output)], timeout=60)
        return output

    return compile_text


@pytest.fixture(scope="session")
def sample(compile_bpf: Compile) -> Path:
    return compile_bpf(SOURCE)


@pytest.fixture(scope="session")
def sample_with_kfuncs(compile_bpf: Compile) -> Path:
    return compile_bpf(SOURCE, "-DKFUNC")
