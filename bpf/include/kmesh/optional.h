/* SPDX-License-Identifier: GPL-2.0-only */
/* What an object does without where a kernel lacks a helper: loader and prober read it there. */
#ifndef KMESH_OPTIONAL_H
#define KMESH_OPTIONAL_H

/* A program that is left out where programs of its type may not call a helper of it. */
#define KMESH_OPTIONAL_PROGRAM(name)                                                               \
	static const char kmesh_optional_##name[]                                                  \
		__attribute__((used, section(".kmesh.optional.programs"))) = #name

#endif
