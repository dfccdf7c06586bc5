/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pjsip_connections: bounds what TCP and TLS connections to our ports can cost. Part of the
 * extension module pjsip_guard.
 *
 * Why. PJSIP accepts whoever connects, gives each connection a buffer and a descriptor, and keeps
 * one that never says anything for ever. Requests are filtered in pjsip_guard.c, but somebody who
 * only connects, or sends half a request and waits, is never asked who he is.
 *
 * How. The transport manager tells of every connection that was accepted (TLS: whose handshake is
 * over) and of every one that ends. One from outside the networks, or one too many of its address,
 * or one too many of all, is closed before anything is read from it. The others have a few seconds
 * for their first whole message (PJSIP's own initial timer, which no configuration reaches).
 *
 * Threads. PJSIP calls in from the thread that pumps its events; Python calls in with the GIL. The
 * mutex is never held while calling into PJSIP or Python.
 */
#include "pjsip_connections.h"

#include <pjlib.h>

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#define PLACES 4096

typedef struct {
    pjsip_transport *transport; /* NULL: free */
    pj_sockaddr source;
} connection_t;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;

/* All of these are under g_lock. */
static connection_t g_connections[PLACES];
static unsigned g_used; /* places from here on were never taken */
static unsigned g_open;
static uint64_t g_refused;
static unsigned g_per_source = PLACES, g_in_all = PLACES;
static unsigned g_first_message_s;

static pjsip_tp_state_callback g_next; /* pjsua's own */

static int
same_host(const pj_sockaddr *one, const pj_sockaddr *other)
{
    return one->addr.sa_family == other->addr.sa_family &&
           memcmp(pj_sockaddr_get_addr(one), pj_sockaddr_get_addr(other),
                  pj_sockaddr_get_addr_len(one)) == 0;
}

/* Returns 0 when there is no place for it. */
static int
take_place(pjsip_transport *transport, const pj_sockaddr *source)
{
    unsigned free = PLACES, of_source = 0;
    for (unsigned i = 0; i < g_used; i++) {
        if (g_connections[i].transport == NULL)
            free = i;
        else if (same_host(&g_connections[i].source, source))
            of_source++;
    }
    if (free == PLACES && g_used < PLACES)
        free = g_used++;
    if (free == PLACES || of_source >= g_per_source || g_open >= g_in_all)
        return 0;
    g_connections[free].transport = transport;
    pj_sockaddr_cp(&g_connections[free].source, source);
    g_open++;
    return 1;
}

static void
leave_place(const pjsip_transport *transport)
{
    for (unsigned i = 0; i < g_used; i++)
        if (g_connections[i].transport == transport) {
            g_connections[i].transport = NULL;
            g_open--;
        }
}

static void
on_state(pjsip_transport *transport, pjsip_transport_state state,
         const pjsip_transport_state_info *info)
{
    if (transport->dir == PJSIP_TP_DIR_INCOMING && state == PJSIP_TP_STATE_CONNECTED) {
        const int known = guard_knows(&transport->key.rem_addr);
        pthread_mutex_lock(&g_lock);
        const int taken = known && take_place(transport, &transport->key.rem_addr);
        const unsigned first_message_s = g_first_message_s;
        if (!taken)
            g_refused++;
        pthread_mutex_unlock(&g_lock);
        if (!taken) {
            pjsip_transport_shutdown2(transport, PJ_TRUE); /* closed at the next timer */
            return;
        }
        if (first_message_s > 0) {
            /* The timer starts when the last reference goes. */
            transport->initial_timeout = first_message_s;
            pjsip_transport_add_ref(transport);
            pjsip_transport_dec_ref(transport);
        }
    } else if (state == PJSIP_TP_STATE_DESTROY) {
        pthread_mutex_lock(&g_lock);
        leave_place(transport);
        pthread_mutex_unlock(&g_lock);
    }
    if (g_next != NULL)
        g_next(transport, state, info);
}

void
connections_register(pjsip_endpoint *endpt)
{
    pjsip_tpmgr *manager = pjsip_endpt_get_tpmgr(endpt);
    pjsip_tp_state_callback now = pjsip_tpmgr_get_state_cb(manager);
    pthread_mutex_lock(&g_lock);
    memset(g_connections, 0, sizeof g_connections); /* those of an endpoint that is gone */
    g_used = g_open = 0;
    pthread_mutex_unlock(&g_lock);
    if (now != &on_state) {
        g_next = now;
        pjsip_tpmgr_set_state_cb(manager, &on_state);
    }
}

void
connections_count(uint64_t *refused, unsigned *open)
{
    pthread_mutex_lock(&g_lock);
    *refused = g_refused;
    *open = g_open;
    pthread_mutex_unlock(&g_lock);
}

PyObject *
py_set_connection_limits(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"per_source", "in_all", "first_message_s", NULL};
    int per_source, in_all, first_message_s;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iii", names, &per_source, &in_all,
                                     &first_message_s))
        return NULL;
    if (per_source < 1 || in_all < 1 || in_all > PLACES || first_message_s < 0) {
        PyErr_Format(PyExc_ValueError,
                     "connections need per_source >= 1, in_all of 1 to %d and first_message_s >= "
                     "0.", PLACES);
        return NULL;
    }
    pthread_mutex_lock(&g_lock);
    g_per_source = (unsigned)per_source;
    g_in_all = (unsigned)in_all;
    g_first_message_s = (unsigned)first_message_s;
    pthread_mutex_unlock(&g_lock);
    Py_RETURN_NONE;
}
