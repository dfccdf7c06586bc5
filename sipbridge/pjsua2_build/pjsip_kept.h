/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Dialogs that outlive the process which began them; part of the module pjsip_guard. */
#ifndef CALLSHIELD_PJSIP_KEPT_H
#define CALLSHIELD_PJSIP_KEPT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pjsip.h>

/* Registers the PJSIP module with the endpoint that runs now. */
pj_status_t kept_register(pjsip_endpoint *endpt);

/* Whether a dialog was restored here: what comes in it is ours and not pjsua's. */
int kept_owns(const pjsip_dialog *dialog);

/* Their documentation is in pjsip_guard.pyi. */
PyObject *py_dialog_state(PyObject *module, PyObject *args);
PyObject *py_kept_open(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *py_kept_request(PyObject *module, PyObject *args);
PyObject *py_kept_answer(PyObject *module, PyObject *args);
PyObject *py_kept_close(PyObject *module, PyObject *args);
PyObject *py_invite_sent(PyObject *module, PyObject *args);
PyObject *py_send_raw(PyObject *module, PyObject *args);
PyObject *py_kept_state(PyObject *module, PyObject *args);
PyObject *py_take_kept(PyObject *module, PyObject *ignored);

#endif
