/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The thread that owns the sockets: it waits, receives, lets the relay decide, and sends. It never
 * takes Python's lock, so audio goes on while Python stands still.
 */
#ifndef CALLSHIELD_ENGINE_H
#define CALLSHIELD_ENGINE_H

#include "relay.h"

struct engine;

/* tap_path: of the detector's socket. NULL with errno when a descriptor can't be had. */
struct engine *engine_new(struct core *, const char *tap_path);
void engine_free(struct engine *);

/* priority: SCHED_RR, 0 for none. An errno when the thread can't be started. */
int engine_start(struct engine *, int priority);
void engine_stop(struct engine *);
/* "realtime" or "ordinary": what the machine allowed. */
const char *engine_scheduling(const struct engine *);
/* Readable when there are events for Python; engine_calm() makes it unreadable again. */
int engine_event_fd(const struct engine *);
void engine_calm(struct engine *);

/* Watch a leg's sockets, or do so under another name; with the core's lock held. */
int engine_watch(struct engine *, const struct session *, const struct leg *, bool again);
void engine_unwatch(struct engine *, const struct leg *);

#endif
