/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the parts of the extension module know of each other. Nothing of this is for the relay.
 */
#ifndef CALLSHIELD_MODULE_PARTS_H
#define CALLSHIELD_MODULE_PARTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <time.h>

#include "engine.h"

enum { CAPTURED = 65536 /* datagrams that a manual core keeps for its test */ };

struct captured {
    uint32_t handle;
    uint8_t leg;
    bool rtcp;
    struct endpoint to;
    size_t size;
    uint8_t *data;
};

typedef struct {
    PyObject_HEAD
    struct core *core;
    struct engine *engine; /* NULL: manual */
    struct captured *sent;
    int sent_count;
    uint8_t **tapped;
    size_t *tapped_size;
    int tapped_count;
    int refuse;  /* errno that a manual core's output gives */
    ns_t now;    /* a manual core's clock */
} Core;

typedef struct {
    PyObject_HEAD
    struct clip *clip;
} Clip;

static inline ns_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (ns_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* A manual core's time is what its test says. */
#define NOW(self) ((self)->engine ? clock_ns(CLOCK_MONOTONIC) : (self)->now)

#define LOCK(self)            \
    Py_BEGIN_ALLOW_THREADS    \
    pthread_mutex_lock(&(self)->core->lock)
#define UNLOCK(self)                           \
    pthread_mutex_unlock(&(self)->core->lock); \
    Py_END_ALLOW_THREADS

/* module.c. find_leg(): an open leg, or NULL; with the core's lock held. */
struct leg *find_leg(struct core *, unsigned int handle, unsigned int name, struct session **);
PyObject *no_session(void);
bool endpoint_parse(struct endpoint *, const char *host, int port);

/* clip_type.c */
extern PyTypeObject ClipType;

/* figures.c */
PyObject *core_stats(Core *, PyObject *);
PyObject *core_activity(Core *, PyObject *);
PyObject *core_totals(Core *, PyObject *);
PyObject *core_events(Core *, PyObject *);
PyObject *core_recorded(Core *, PyObject *);

/* manual.c: a manual core's output and tap, and the methods that its tests have. */
int manual_output(struct core *, struct session *, struct leg *, bool rtcp, const uint8_t *packet,
                  size_t size, const struct endpoint *to);
int manual_tap(struct core *, const uint8_t *datagram, size_t size);
PyObject *core_inject(Core *, PyObject *);
PyObject *core_tick(Core *, PyObject *);
PyObject *core_sent(Core *, PyObject *);
PyObject *core_tapped(Core *, PyObject *);
PyObject *core_refuse(Core *, PyObject *);

#endif
