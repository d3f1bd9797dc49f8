/* SPDX-License-Identifier: GPL-2.0-only */
/* A path in the form in which Envoy matches it and hands it on (normalize_path). */
#ifndef KMESH_GATE_NORMALISE_H
#define KMESH_GATE_NORMALISE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Rewrite the path of a request whose head is whole and plainly right (head.h). The head keeps its
 * length, as positions in the client's stream are counted: what the path gives up goes as blanks
 * before the value of the first header. False: it stays as it was.
 */
bool normalise(char *head, size_t length);

#endif
