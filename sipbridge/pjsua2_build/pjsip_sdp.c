/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pjsip_sdp: the far end's session description in force, as text.
 *
 * Why. An answer that comes in an ACK (RFC 3261 13.2.1: our offer went in the 200) reaches pjsua2
 * only as one stream's address; codecs, packet length and SRTP keys are not in it. */
#include "pjsip_sdp.h"

#include <pjlib.h>
#include <pjmedia.h>
#include <pjsip_ua.h>
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>

PyObject *
py_remote_sdp(PyObject *Py_UNUSED(module), PyObject *args)
{
    int index;
    if (!PyArg_ParseTuple(args, "i", &index))
        return NULL;
    if (!pj_thread_is_registered()) {
        PyErr_SetString(PyExc_RuntimeError,
                        "pjsip_guard.remote_sdp() needs a thread that PJSIP knows.");
        return NULL;
    }
    if (index < 0 || index >= (int)pjsua_var.ua_cfg.max_calls)
        Py_RETURN_NONE;
    const pjsip_inv_session *inv = pjsua_var.calls[index].inv;
    const pjmedia_sdp_session *remote;
    if (inv == NULL || inv->neg == NULL ||
        pjmedia_sdp_neg_get_active_remote(inv->neg, &remote) != PJ_SUCCESS)
        Py_RETURN_NONE;
    char text[PJSIP_MAX_PKT_LEN];
    int length = pjmedia_sdp_print(remote, text, sizeof text);
    if (length < 0)
        Py_RETURN_NONE;
    return PyUnicode_DecodeUTF8(text, length, "replace");
}
