/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pjsip_dialogs: hands the requests inside dialogs that stock pjsua answers in its own way to
 * Python, which answers them in ours. Part of the extension module pjsip_guard.
 *
 * Why. Left alone, pjsua dials the Refer-To of every REFER itself, answers an INFO with a body
 * that it does not know 500, refuses a NOTIFY that none of its own subscriptions asked for, and
 * joins or cuts calls by itself when an INVITE carries Replaces. A back-to-back user agent has to
 * decide all four.
 *
 * How. This module sits between the transaction layer and the user agent layer, so it sees each
 * new request once and no retransmission. A REFER (RFC 3515), NOTIFY (RFC 6665) or INFO (RFC 6086)
 * of a dialog that belongs to a call of pjsua gets a server transaction here, and waits in a ring
 * for Python; until Python answers it the transaction absorbs retransmissions. The dialog's CSeq
 * is kept by us meanwhile (RFC 3261 12.2.2), since PJSIP's dialog never sees the request. From an
 * INVITE outside dialogs the Replaces header (RFC 3891) is taken away before pjsua reads it; the
 * bytes that Python is shown still have it.
 *
 * Threads. PJSIP calls in from the thread that pumps its events, and Python calls in from the same
 * one (the bridge pumps from its event loop); the mutex is for the day when that changes. It is
 * never held while calling into PJSIP or Python.
 */
#include "pjsip_dialogs.h"

#include "pjsip_kept.h"

#include <pjlib.h>
#include <pjsip_ua.h>
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>

#include <pthread.h>
#include <stdint.h>

/* Requests waiting for Python, or for its answer. When the ring is full a request gets 503. */
#define WAITING 256

typedef struct {
    uint64_t token; /* 0: free */
    int taken;
    int call; /* pjsua's number */
    pjsip_rx_data *rdata; /* our clone */
    pj_str_t tsx_key;     /* in the clone's pool */
} waiting_t;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static waiting_t g_waiting[WAITING]; /* under g_lock */
static uint64_t g_last_token;        /* under g_lock */
static unsigned g_untaken;           /* under g_lock; Python asks after every packet */
static pjsip_endpoint *g_endpt;

/* Method names are compared without case, as pjsua does: "refer" must not pass us either. */
static const pj_str_t REFER = {"REFER", 5}, NOTIFY = {"NOTIFY", 6}, INFO = {"INFO", 4};

static pj_bool_t on_rx_request(pjsip_rx_data *rdata);
static pj_status_t on_unload(void);

static pjsip_module g_module = {
    .name = {"callshield-dialogs", 18},
    .id = -1,
    .priority = PJSIP_MOD_PRIORITY_UA_PROXY_LAYER - 1,
    .unload = &on_unload,
    .on_rx_request = &on_rx_request,
};

pj_status_t
dialogs_register(pjsip_endpoint *endpt)
{
    g_endpt = endpt;
    return pjsip_endpt_register_module(endpt, &g_module);
}

static pj_status_t
on_unload(void)
{
    waiting_t left[WAITING];
    pthread_mutex_lock(&g_lock);
    memcpy(left, g_waiting, sizeof left);
    memset(g_waiting, 0, sizeof g_waiting);
    g_untaken = 0;
    pthread_mutex_unlock(&g_lock);
    for (int i = 0; i < WAITING; i++)
        if (left[i].token)
            pjsip_rx_data_free_cloned(left[i].rdata);
    g_endpt = NULL;
    g_module.id = -1;
    return PJ_SUCCESS;
}

/* Returns 0 when there is no room. */
static int
keep(int call, pjsip_rx_data *clone, const pj_str_t *key)
{
    int kept = 0;
    pthread_mutex_lock(&g_lock);
    for (int i = 0; i < WAITING && !kept; i++) {
        if (g_waiting[i].token == 0) {
            g_waiting[i] = (waiting_t){++g_last_token, 0, call, clone, *key};
            g_untaken++;
            kept = 1;
        }
    }
    pthread_mutex_unlock(&g_lock);
    return kept;
}

/* Takes Replaces away from an INVITE that begins a dialog: Python decides about it. */
static void
strip_replaces(pjsip_rx_data *rdata)
{
    const pj_str_t name = {"Replaces", 8};
    void *header;
    while ((header = pjsip_msg_find_hdr_by_name(rdata->msg_info.msg, &name, NULL)) != NULL)
        pj_list_erase(header);
}

static pj_bool_t
on_rx_request(pjsip_rx_data *rdata)
{
    const pjsip_method *method = &rdata->msg_info.msg->line.req.method;
    if (pjsip_method_cmp(method, &rdata->msg_info.cseq->method) != 0) {
        /* RFC 3261 8.1.1.5: both must be the same. PJSIP's modules look at one or the other, so a
         * REFER in the CSeq alone would pass us and be carried out by pjsua. */
        if (method->id != PJSIP_ACK_METHOD)
            pjsip_endpt_respond_stateless(g_endpt, rdata, PJSIP_SC_BAD_REQUEST, NULL, NULL, NULL);
        return PJ_TRUE;
    }
    if (rdata->msg_info.to->tag.slen == 0) { /* pjsip_guard.c let nothing else pass */
        if (method->id == PJSIP_INVITE_METHOD)
            strip_replaces(rdata);
        return PJ_FALSE;
    }
    if (pj_stricmp(&method->name, &REFER) != 0 && pj_stricmp(&method->name, &NOTIFY) != 0 &&
        pj_stricmp(&method->name, &INFO) != 0)
        return PJ_FALSE;

    pjsip_dialog *dialog = pjsip_ua_find_dialog(
        &rdata->msg_info.cid->id, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag, PJ_TRUE);
    if (dialog != NULL && kept_owns(dialog)) {
        pjsip_dlg_dec_lock(dialog);
        return PJ_FALSE; /* PJSIP hands it to the dialog's usage: pjsip_kept.c */
    }
    const pjsua_call *call = dialog != NULL ? dialog->mod_data[pjsua_var.mod.id] : NULL;
    if (call == NULL) {
        /* Not left to the user agent layer: that one finds dialogs by their tags alone, and would
         * hand a REFER with another Call-ID to pjsua. */
        if (dialog != NULL)
            pjsip_dlg_dec_lock(dialog);
        pjsip_endpt_respond_stateless(g_endpt, rdata, PJSIP_SC_CALL_TSX_DOES_NOT_EXIST, NULL, NULL,
                                      NULL);
        return PJ_TRUE;
    }
    if (rdata->msg_info.cseq->cseq <= dialog->remote.cseq) {
        pjsip_dlg_dec_lock(dialog);
        return PJ_FALSE; /* out of order: the dialog answers 500 */
    }
    const int index = call->index;
    dialog->remote.cseq = rdata->msg_info.cseq->cseq;
    pjsip_dlg_dec_lock(dialog);

    pjsip_transaction *tsx;
    if (pjsip_tsx_create_uas2(&g_module, rdata, NULL, &tsx) != PJ_SUCCESS) {
        pjsip_endpt_respond_stateless(g_endpt, rdata, PJSIP_SC_INTERNAL_SERVER_ERROR, NULL, NULL,
                                      NULL);
        return PJ_TRUE;
    }
    pjsip_tsx_recv_msg(tsx, rdata);

    pjsip_rx_data *clone = NULL;
    int kept = 0;
    if (pjsip_rx_data_clone(rdata, 0, &clone) == PJ_SUCCESS) {
        pj_str_t key;
        pj_strdup(clone->tp_info.pool, &key, &tsx->transaction_key);
        kept = keep(index, clone, &key);
    }
    if (!kept) {
        pjsip_tx_data *tdata;
        if (pjsip_endpt_create_response(g_endpt, rdata, PJSIP_SC_SERVICE_UNAVAILABLE, NULL,
                                        &tdata) == PJ_SUCCESS)
            pjsip_tsx_send_msg(tsx, tdata);
        if (clone != NULL)
            pjsip_rx_data_free_cloned(clone);
    }
    return PJ_TRUE;
}

/* ---------------------------------------------------------------- Python's side */

PyObject *
py_take_requests(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    waiting_t taken[WAITING];
    int count = 0;
    pthread_mutex_lock(&g_lock);
    for (int i = 0; g_untaken && i < WAITING; i++) {
        if (g_waiting[i].token && !g_waiting[i].taken) {
            g_waiting[i].taken = 1;
            g_untaken--;
            int at = count++; /* slots are reused: sort by token, the order of arrival */
            while (at > 0 && taken[at - 1].token > g_waiting[i].token) {
                taken[at] = taken[at - 1];
                at--;
            }
            taken[at] = g_waiting[i];
        }
    }
    pthread_mutex_unlock(&g_lock);

    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        const pjsip_rx_data *rdata = taken[i].rdata;
        PyObject *item = Py_BuildValue(
            "(Kiy#)", (unsigned long long)taken[i].token, taken[i].call, rdata->msg_info.msg_buf,
            (Py_ssize_t)(rdata->msg_info.len > 0 ? rdata->msg_info.len : 0));
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, item);
    }
    return list;
}

/* A header value may not end its line: what a far end said must not become a header of ours. */
static int
is_one_line(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return 0;
    return 1;
}

static int
add_headers(pjsip_tx_data *tdata, PyObject *sequence)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); i++) {
        const char *name, *value;
        PyObject *pair = PySequence_Fast_GET_ITEM(sequence, i);
        if (!PyTuple_Check(pair)) {
            PyErr_SetString(PyExc_TypeError, "each header must be a tuple of a name and a value.");
            return 0;
        }
        if (!PyArg_ParseTuple(pair, "ss;each header must be (name, value)", &name, &value))
            return 0;
        if (!*name || !is_one_line(name) || !is_one_line(value)) {
            PyErr_SetString(PyExc_ValueError, "a header must be one line of text with a name.");
            return 0;
        }
        pj_str_t n = pj_str((char *)name), v = pj_str((char *)value);
        pjsip_msg_add_hdr(tdata->msg,
                          (pjsip_hdr *)pjsip_generic_string_hdr_create(tdata->pool, &n, &v));
    }
    return 1;
}

static int
require_thread(const char *what)
{
    if (g_endpt == NULL || !pj_thread_is_registered()) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s needs pjsip_guard.install() first, and a thread that PJSIP knows.", what);
        return 0;
    }
    return 1;
}

PyObject *
py_answer_request(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long token;
    int code;
    PyObject *headers;
    if (!PyArg_ParseTuple(args, "KiO", &token, &code, &headers) ||
        !require_thread("pjsip_guard.answer_request()"))
        return NULL;
    if (code < 200 || code > 699) {
        PyErr_SetString(PyExc_ValueError, "the answer to a request must be 200 to 699.");
        return NULL;
    }
    PyObject *sequence = PySequence_Fast(headers, "headers must be a list of (name, value).");
    if (sequence == NULL)
        return NULL;

    waiting_t request = {0};
    pthread_mutex_lock(&g_lock);
    for (int i = 0; i < WAITING; i++)
        if (token && g_waiting[i].token == token) {
            request = g_waiting[i];
            memset(&g_waiting[i], 0, sizeof g_waiting[i]);
        }
    pthread_mutex_unlock(&g_lock);
    if (request.token == 0) {
        Py_DECREF(sequence);
        Py_RETURN_FALSE;
    }

    pjsip_rx_data *rdata = request.rdata;
    pjsip_tx_data *tdata = NULL;
    pj_status_t status;
    pjsip_dialog *dialog = pjsip_ua_find_dialog(
        &rdata->msg_info.cid->id, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag, PJ_TRUE);
    if (dialog != NULL) {
        status = pjsip_dlg_create_response(dialog, rdata, code, NULL, &tdata);
        if (status == PJ_SUCCESS && code < 300 && /* RFC 3515 section 2.2: Contact in a 2xx */
            pjsip_msg_find_hdr(tdata->msg, PJSIP_H_CONTACT, NULL) == NULL)
            pjsip_msg_add_hdr(tdata->msg,
                              (pjsip_hdr *)pjsip_hdr_clone(tdata->pool, dialog->local.contact));
        pjsip_dlg_dec_lock(dialog);
    } else {
        status = pjsip_endpt_create_response(g_endpt, rdata, code, NULL, &tdata);
    }
    int good = status == PJ_SUCCESS && add_headers(tdata, sequence);
    Py_DECREF(sequence);
    pjsip_transaction *tsx =
        status == PJ_SUCCESS ? pjsip_tsx_layer_find_tsx2(&request.tsx_key, PJ_TRUE) : NULL;
    if (!good && status == PJ_SUCCESS) {
        /* Bad headers: the far end must hear something nevertheless. */
        pjsip_tx_data_dec_ref(tdata);
        status = pjsip_endpt_create_response(g_endpt, rdata, PJSIP_SC_INTERNAL_SERVER_ERROR, NULL,
                                             &tdata);
    }
    int sent = 0;
    if (status == PJ_SUCCESS) {
        if (tsx != NULL)
            sent = pjsip_tsx_send_msg(tsx, tdata) == PJ_SUCCESS;
        if (!sent)
            pjsip_tx_data_dec_ref(tdata);
    }
    if (tsx != NULL)
        pj_grp_lock_dec_ref(tsx->grp_lock);
    pjsip_rx_data_free_cloned(rdata);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(sent);
}

PyObject *
py_dialog(PyObject *Py_UNUSED(module), PyObject *args)
{
    int index;
    if (!PyArg_ParseTuple(args, "i", &index) || !require_thread("pjsip_guard.dialog()"))
        return NULL;
    if (index < 0 || index >= (int)pjsua_var.ua_cfg.max_calls)
        Py_RETURN_NONE;
    const pjsip_inv_session *inv = pjsua_var.calls[index].inv;
    if (inv == NULL || inv->dlg == NULL)
        Py_RETURN_NONE;
    const pjsip_dialog *dialog = inv->dlg;
    char target[PJSIP_MAX_URL_SIZE];
    int length =
        dialog->target
            ? pjsip_uri_print(PJSIP_URI_IN_REQ_URI, dialog->target, target, sizeof target)
            : 0;
    return Py_BuildValue("(s#s#s#s#)", dialog->call_id->id.ptr, (Py_ssize_t)dialog->call_id->id.slen,
                         dialog->local.info->tag.ptr, (Py_ssize_t)dialog->local.info->tag.slen,
                         dialog->remote.info->tag.ptr ? dialog->remote.info->tag.ptr : "",
                         (Py_ssize_t)dialog->remote.info->tag.slen, target,
                         (Py_ssize_t)(length > 0 ? length : 0));
}
