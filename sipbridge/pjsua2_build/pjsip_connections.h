/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Who may hold SIP connections to us, and how many; part of the module pjsip_guard. */
#ifndef CALLSHIELD_PJSIP_CONNECTIONS_H
#define CALLSHIELD_PJSIP_CONNECTIONS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pjsip.h>

/* Puts itself before the transport manager's state callback of the endpoint that runs now. */
void connections_register(pjsip_endpoint *endpt);

/* Whether any request could come from there, and ours may go there: an allowed network, or one of
 * the phones'. In pjsip_guard.c. */
int guard_knows(const pj_sockaddr *source);

/* How many connections were refused, and how many are open. */
void connections_count(uint64_t *refused, unsigned *open);

/* Its documentation is in pjsip_guard.pyi. */
PyObject *py_set_connection_limits(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
