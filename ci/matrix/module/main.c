// SPDX-License-Identifier: GPL-2.0-only
/*
 * A kernel module of ours for the kernel matrix, not for anybody's node: it offers what openEuler's
 * Kmesh module offers, so that the programs that need it can be loaded and driven.
 */
#include <linux/module.h>

#include "kmesh_kfuncs.h"

static int __init kmesh_init(void)
{
	int err = kmesh_register_kfuncs();

	return err ?: kmesh_register_defer();
}

static void __exit kmesh_exit(void)
{
	kmesh_unregister_defer();
}

module_init(kmesh_init);
module_exit(kmesh_exit);
MODULE_DESCRIPTION("Functions for Kmesh's BPF programs, for the kernel matrix");
MODULE_LICENSE("GPL");
