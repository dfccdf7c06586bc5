/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The far end's session description in force; part of the module pjsip_guard. */
#ifndef CALLSHIELD_PJSIP_SDP_H
#define CALLSHIELD_PJSIP_SDP_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Its documentation is in pjsip_guard.pyi. */
PyObject *py_remote_sdp(PyObject *module, PyObject *args);

#endif
