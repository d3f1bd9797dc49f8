/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef KMESH_GATE_HANDOVER_H
#define KMESH_GATE_HANDOVER_H

#include <stdbool.h>

int control_call(const char *path);
void control_stop_listening(void);
void control_end(void);
bool control_move(const char *path); /* what it listens at is called so from now on */

/* The old gate's side. */
void handover_begin(int fd, bool same_maps, bool takes_heads);
void handover_tick(void);

/* The new one's: true when there was one to take over from. */
bool handover_take(const char *path);

/* There is a gate with other maps: it is succeeded when nobody is sent there any more. */
void handover_wait(const char *path);
const char *handover_succeed(void); /* NULL, or why not */

#endif
