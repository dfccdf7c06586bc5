/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The requests inside dialogs that Python answers; part of the module pjsip_guard. */
#ifndef CALLSHIELD_PJSIP_DIALOGS_H
#define CALLSHIELD_PJSIP_DIALOGS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pjsip.h>

/* Registers the PJSIP module with the endpoint that runs now. */
pj_status_t dialogs_register(pjsip_endpoint *endpt);

/* Their documentation is in pjsip_guard.pyi. */
PyObject *py_take_requests(PyObject *module, PyObject *ignored);
PyObject *py_answer_request(PyObject *module, PyObject *args);
PyObject *py_dialog(PyObject *module, PyObject *args);

#endif
