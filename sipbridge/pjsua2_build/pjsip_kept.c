/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pjsip_kept: dialogs of a process that died, taken up again by the one that follows it. Part of
 * the extension module pjsip_guard.
 *
 * Why. When the bridge is killed, its calls' audio goes on in the media worker, and the far ends
 * know of nothing: their dialogs live. The next process has to hear their BYE, and to send one, in
 * dialogs that its PJSIP never saw begin. Left alone PJSIP answers 481 (RFC 3261 12.2.2), and the
 * other leg's far end sits in silence until its session timer.
 *
 * How. dialog_state() gives all that RFC 3261 section 12 calls the state of a dialog, while it
 * lives; kept_open() makes a pjsip_dialog of it again and puts it where PJSIP's user agent layer
 * looks for the dialog of a request. Matching, CSeq, route set (strict and loose), transactions,
 * retransmissions and digest are then PJSIP's own, as for any dialog. There is no invite session
 * (and no pjsua call) on it: this module is the dialog's only usage. It hands the requests that
 * come in it to Python, and the answers to those that Python has sent.
 *
 * PJSIP has no call to restore a dialog, and asks not to write into one: kept_open() does, between
 * the dialog's making and its first use, with the versions that the build names.
 *
 * Threads. All of it runs on the thread that pumps PJSIP's events, which is Python's own; each
 * function of Python's checks that PJLIB knows its thread.
 */
#include "pjsip_kept.h"

#include <pjlib.h>
#include <pjmedia.h>
#include <pjsip_ua.h>
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>

#include <stdint.h>
#include <string.h>

/* Three legs for each call that this build carries. */
#define KEPT (3 * PJSUA_MAX_CALLS / 2)
/* News that Python has not taken; it does so after every event. Beyond it a request is answered
 * 500 by the dialog, and an answer is lost. */
#define NEWS 1024

typedef struct {
    uint64_t handle; /* 0: free */
    pjsip_dialog *dialog;
    pjsip_transaction *invite; /* a re-INVITE whose ACK has not come */
} kept_t;

typedef struct {
    uint64_t handle, token; /* token 0: an answer to a request of ours */
    int status;
    int taken;
    pjsip_rx_data *rdata; /* our clone; NULL: nothing came (a timeout) */
    pj_str_t tsx_key;     /* in the clone's pool */
    char method[16];
} news_t;

static kept_t g_kept[KEPT];
static news_t g_news[NEWS]; /* token or status set: in use */
static unsigned g_untaken;
static uint64_t g_last_handle, g_last_token;
static pjsip_endpoint *g_endpt;

static pj_bool_t on_rx_request(pjsip_rx_data *rdata);
static void on_tsx_state(pjsip_transaction *tsx, pjsip_event *event);
static pj_status_t on_unload(void);

static pjsip_module g_module = {
    .name = {"callshield-kept", 15},
    .id = -1,
    .priority = PJSIP_MOD_PRIORITY_DIALOG_USAGE,
    .unload = &on_unload,
    .on_rx_request = &on_rx_request,
    .on_tsx_state = &on_tsx_state,
};

pj_status_t
kept_register(pjsip_endpoint *endpt)
{
    g_endpt = endpt;
    return pjsip_endpt_register_module(endpt, &g_module);
}

static void
forget_news(news_t *news)
{
    if (news->rdata != NULL)
        pjsip_rx_data_free_cloned(news->rdata);
    if (!news->taken)
        g_untaken--;
    memset(news, 0, sizeof *news);
}

static pj_status_t
on_unload(void)
{
    for (int i = 0; i < NEWS; i++)
        if (g_news[i].token || g_news[i].status)
            forget_news(&g_news[i]);
    memset(g_kept, 0, sizeof g_kept); /* their pools go with the endpoint */
    g_endpt = NULL;
    g_module.id = -1;
    return PJ_SUCCESS;
}

int
kept_owns(const pjsip_dialog *dialog)
{
    return g_module.id >= 0 && dialog->mod_data[g_module.id] != NULL;
}

static kept_t *
kept_of(uint64_t handle)
{
    for (int i = 0; handle && i < KEPT; i++)
        if (g_kept[i].handle == handle)
            return &g_kept[i];
    return NULL;
}

static news_t *
free_news(void)
{
    for (int i = 0; i < NEWS; i++)
        if (!g_news[i].token && !g_news[i].status)
            return &g_news[i];
    return NULL;
}

/* ---------------------------------------------------------------- what PJSIP tells us */

/* The ACK to our 200 of a re-INVITE has a transaction of its own (RFC 3261 13.3.1.4): the 200 is
 * repeated no more, and repetitions of the INVITE are taken in for a while. */
static void
acknowledged(kept_t *kept, const pjsip_rx_data *rdata)
{
    pjsip_transaction *tsx = kept->invite;
    if (tsx == NULL || rdata->msg_info.cseq->cseq != tsx->cseq ||
        tsx->state < PJSIP_TSX_STATE_COMPLETED)
        return;
    kept->invite = NULL;
    if (tsx->status_code / 100 == 2) {
        pjsip_tsx_stop_retransmit(tsx);
        pjsip_tsx_terminate_async2(tsx, tsx->status_code, NULL, pjsip_cfg()->tsx.td);
    }
}

static pj_bool_t
on_rx_request(pjsip_rx_data *rdata)
{
    pjsip_dialog *dialog = pjsip_rdata_get_dlg(rdata);
    kept_t *kept = dialog != NULL ? dialog->mod_data[g_module.id] : NULL;
    if (kept == NULL)
        return PJ_FALSE; /* outside of dialogs, or in one of pjsua's */
    const pjsip_method *method = &rdata->msg_info.msg->line.req.method;
    if (method->id == PJSIP_ACK_METHOD) {
        acknowledged(kept, rdata);
        return PJ_TRUE;
    }
    pjsip_transaction *tsx = pjsip_rdata_get_tsx(rdata);
    news_t *news = free_news();
    pjsip_rx_data *clone = NULL;
    if (tsx == NULL || news == NULL || pjsip_rx_data_clone(rdata, 0, &clone) != PJ_SUCCESS)
        return PJ_FALSE; /* the dialog answers 500 */
    memset(news, 0, sizeof *news);
    news->handle = kept->handle;
    news->token = ++g_last_token;
    news->rdata = clone;
    pj_strdup(clone->tp_info.pool, &news->tsx_key, &tsx->transaction_key);
    g_untaken++;
    if (method->id == PJSIP_INVITE_METHOD)
        kept->invite = tsx;
    return PJ_TRUE;
}

static int
challenged(pjsip_dialog *dialog, pjsip_transaction *tsx, pjsip_event *event)
{
    pjsip_tx_data *again;
    if ((tsx->status_code != 401 && tsx->status_code != 407) ||
        event->body.tsx_state.type != PJSIP_EVENT_RX_MSG)
        return 0;
    if (pjsip_auth_clt_reinit_req(&dialog->auth_sess, event->body.tsx_state.src.rdata, tsx->last_tx,
                                  &again) != PJ_SUCCESS)
        return 0;
    return pjsip_dlg_send_request(dialog, again, -1, NULL) == PJ_SUCCESS;
}

static void
on_tsx_state(pjsip_transaction *tsx, pjsip_event *event)
{
    pjsip_dialog *dialog = pjsip_tsx_get_dlg(tsx);
    kept_t *kept = dialog != NULL ? dialog->mod_data[g_module.id] : NULL;
    if (kept == NULL)
        return;
    if (kept->invite == tsx && tsx->state >= PJSIP_TSX_STATE_TERMINATED)
        kept->invite = NULL; /* no ACK came */
    if (tsx->role != PJSIP_ROLE_UAC || tsx->status_code < 200 ||
        event->body.tsx_state.prev_state == PJSIP_TSX_STATE_COMPLETED ||
        (tsx->state != PJSIP_TSX_STATE_COMPLETED && tsx->state != PJSIP_TSX_STATE_TERMINATED))
        return;
    if (challenged(dialog, tsx, event))
        return;
    news_t *news = free_news();
    if (news == NULL)
        return;
    memset(news, 0, sizeof *news);
    news->handle = kept->handle;
    news->status = tsx->status_code;
    snprintf(news->method, sizeof news->method, "%.*s", (int)tsx->method.name.slen,
             tsx->method.name.ptr);
    if (event->body.tsx_state.type == PJSIP_EVENT_RX_MSG)
        (void)pjsip_rx_data_clone(event->body.tsx_state.src.rdata, 0, &news->rdata);
    g_untaken++;
}

/* ---------------------------------------------------------------- Python's side */

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

/* A URI as text; new reference, or NULL with an exception. */
static PyObject *
uri_text(pjsip_uri_context_e context, const void *uri)
{
    char text[PJSIP_MAX_URL_SIZE];
    const int length = uri == NULL ? 0 : pjsip_uri_print(context, uri, text, sizeof text);
    return PyUnicode_DecodeUTF8(text, length > 0 ? length : 0, "replace");
}

static PyObject *
tag_text(const pj_str_t *text)
{
    return PyUnicode_DecodeUTF8(text->ptr != NULL ? text->ptr : "", text->slen, "replace");
}

/* The route set, a Route header's value each. */
static PyObject *
routes_of(const pjsip_dialog *dialog)
{
    PyObject *list = PyList_New(0);
    const pjsip_route_hdr *route = dialog->route_set.next;
    for (; list != NULL && route != &dialog->route_set; route = route->next) {
        char text[PJSIP_MAX_URL_SIZE];
        const int length = pjsip_uri_print(PJSIP_URI_IN_ROUTING_HDR, &route->name_addr, text,
                                           sizeof text);
        PyObject *item = PyUnicode_DecodeUTF8(text, length > 0 ? length : 0, "replace");
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* One of the session descriptions in force, as it was on the wire; empty when nothing is agreed. */
static PyObject *
sdp_text(const pjsip_inv_session *inv, int local)
{
    const pjmedia_sdp_session *sdp = NULL;
    char text[PJSIP_MAX_PKT_LEN];
    int length = 0;
    if (inv->neg != NULL && (local ? pjmedia_sdp_neg_get_active_local(inv->neg, &sdp)
                                   : pjmedia_sdp_neg_get_active_remote(inv->neg, &sdp)) ==
                                PJ_SUCCESS)
        length = pjmedia_sdp_print(sdp, text, sizeof text);
    return PyUnicode_DecodeUTF8(text, length > 0 ? length : 0, "replace");
}

PyObject *
py_dialog_state(PyObject *Py_UNUSED(module), PyObject *args)
{
    int index;
    if (!PyArg_ParseTuple(args, "i", &index) || !require_thread("pjsip_guard.dialog_state()"))
        return NULL;
    if (index < 0 || index >= (int)pjsua_var.ua_cfg.max_calls)
        Py_RETURN_NONE;
    const pjsip_inv_session *inv = pjsua_var.calls[index].inv;
    if (inv == NULL || inv->dlg == NULL)
        Py_RETURN_NONE;
    const pjsip_dialog *dialog = inv->dlg;
    return Py_BuildValue(
        "{sNsNsNsNsNsNsNsNsisisOsNsN}", "call_id", tag_text(&dialog->call_id->id), "local_uri",
        uri_text(PJSIP_URI_IN_FROMTO_HDR, dialog->local.info->uri), "local_tag",
        tag_text(&dialog->local.info->tag), "remote_uri",
        uri_text(PJSIP_URI_IN_FROMTO_HDR, dialog->remote.info->uri), "remote_tag",
        tag_text(&dialog->remote.info->tag), "target",
        uri_text(PJSIP_URI_IN_REQ_URI, dialog->target), "contact",
        uri_text(PJSIP_URI_IN_CONTACT_HDR, dialog->local.contact->uri), "routes", routes_of(dialog),
        "local_cseq", dialog->local.cseq, "remote_cseq", dialog->remote.cseq, "uac",
        dialog->role == PJSIP_ROLE_UAC ? Py_True : Py_False, "local_sdp", sdp_text(inv, 1),
        "remote_sdp", sdp_text(inv, 0));
}

/* Writes what was kept into a dialog that PJSIP has just made, and puts it where requests are
 * matched by its own tag. The dialog is locked. */
static pj_status_t
fill(pjsip_dialog *dialog, const char *call_id, const char *local_tag, const char *remote_tag,
     PyObject *routes, int local_cseq, int remote_cseq, int uac, int account)
{
    pjsip_user_agent *ua = pjsip_ua_instance();
    pj_status_t status = pjsip_ua_unregister_dlg(ua, dialog);
    if (status != PJ_SUCCESS)
        return status;
    pj_strdup2_with_null(dialog->pool, &dialog->local.info->tag, local_tag);
    dialog->local.tag_hval = pj_hash_calc_tolower(0, NULL, &dialog->local.info->tag);
    pj_strdup2_with_null(dialog->pool, &dialog->remote.info->tag, remote_tag);
    pj_strdup2_with_null(dialog->pool, &dialog->call_id->id, call_id);
    dialog->local.first_cseq = dialog->local.cseq = local_cseq;
    dialog->remote.first_cseq = dialog->remote.cseq = remote_cseq;
    dialog->role = uac ? PJSIP_ROLE_UAC : PJSIP_ROLE_UAS;
    dialog->state = PJSIP_DIALOG_STATE_ESTABLISHED;
    dialog->uac_has_2xx = dialog->ack_sent = PJ_TRUE;
    pj_list_init(&dialog->route_set);
    const pj_str_t name = {"Route", 5};
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(routes); i++) {
        Py_ssize_t length;
        const char *text = PyUnicode_AsUTF8AndSize(PySequence_Fast_GET_ITEM(routes, i), &length);
        if (text == NULL) {
            PyErr_Clear();
            status = PJ_EINVAL;
            break;
        }
        char *copy = pj_pool_alloc(dialog->pool, (size_t)length + 1);
        memcpy(copy, text, (size_t)length + 1);
        pjsip_route_hdr *route = pjsip_parse_hdr(dialog->pool, &name, copy, (size_t)length, NULL);
        if (route == NULL) {
            status = PJSIP_EINVALIDHDR;
            break;
        }
        pj_list_push_back(&dialog->route_set, route);
    }
    dialog->route_set_frozen = PJ_TRUE;
    /* Registered again in any case: PJSIP takes it out when it is destroyed. */
    const pj_status_t registered = pjsip_ua_register_dlg(ua, dialog);
    if (status != PJ_SUCCESS || registered != PJ_SUCCESS)
        return status != PJ_SUCCESS ? status : registered;

    pjsua_acc *owner = &pjsua_var.acc[account];
    pjsip_tpselector selector;
    pjsua_init_tpselector(account, &selector);
    status = pjsip_dlg_set_transport(dialog, &selector);
    if (status == PJ_SUCCESS && owner->cred_cnt)
        status = pjsip_auth_clt_set_credentials(&dialog->auth_sess, (int)owner->cred_cnt,
                                                owner->cred);
    return status;
}

PyObject *
py_kept_open(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"account",     "call_id", "local_uri",  "local_tag",
                            "remote_uri",  "remote_tag", "target",  "contact",
                            "routes",      "local_cseq", "remote_cseq", "uac", NULL};
    int account, local_cseq, remote_cseq, uac;
    const char *call_id, *local_uri, *local_tag, *remote_uri, *remote_tag, *target, *contact;
    PyObject *given;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "isssssssOiip", names, &account, &call_id,
                                     &local_uri, &local_tag, &remote_uri, &remote_tag, &target,
                                     &contact, &given, &local_cseq, &remote_cseq, &uac) ||
        !require_thread("pjsip_guard.kept_open()"))
        return NULL;
    if (!pjsua_acc_is_valid(account) || !*call_id || !*local_tag || !*remote_tag || !*target) {
        PyErr_SetString(PyExc_ValueError, "a dialog needs an account, a Call-ID, both tags and "
                                          "where its requests go.");
        return NULL;
    }
    const pj_str_t id = pj_str((char *)call_id), ours = pj_str((char *)local_tag),
                   theirs = pj_str((char *)remote_tag);
    kept_t *kept = NULL;
    for (int i = 0; i < KEPT && kept == NULL; i++)
        if (g_kept[i].handle == 0)
            kept = &g_kept[i];
    if (kept == NULL || pjsip_ua_find_dialog(&id, &ours, &theirs, PJ_FALSE) != NULL) {
        PyErr_SetString(PyExc_ValueError, kept == NULL ? "too many dialogs are kept already."
                                                       : "this dialog is there already.");
        return NULL;
    }
    PyObject *routes = PySequence_Fast(given, "routes must be a list of text.");
    if (routes == NULL)
        return NULL;

    pj_str_t local = pj_str((char *)local_uri), remote = pj_str((char *)remote_uri),
             to = pj_str((char *)target), reach_us = pj_str((char *)contact);
    pjsip_dialog *dialog = NULL;
    pj_status_t status =
        pjsip_dlg_create_uac(pjsip_ua_instance(), &local, &reach_us, &remote, &to, &dialog);
    if (status == PJ_SUCCESS) {
        pjsip_dlg_inc_lock(dialog);
        status = fill(dialog, call_id, local_tag, remote_tag, routes, local_cseq, remote_cseq, uac,
                      account);
        if (status == PJ_SUCCESS)
            status = pjsip_dlg_add_usage(dialog, &g_module, kept);
        if (status == PJ_SUCCESS) {
            *kept = (kept_t){++g_last_handle, dialog, NULL};
            pjsip_dlg_inc_session(dialog, &g_module);
        }
        pjsip_dlg_dec_lock(dialog); /* destroys it when nothing came of it */
    }
    Py_DECREF(routes);
    if (status != PJ_SUCCESS) {
        char text[PJ_ERR_MSG_SIZE];
        const pj_str_t message = pj_strerror(status, text, sizeof text);
        return PyErr_Format(PyExc_ValueError, "this dialog cannot be restored: %.*s.",
                            (int)message.slen, message.ptr);
    }
    return PyLong_FromUnsignedLongLong(kept->handle);
}

/* A header value may not end its line. */
static int
is_one_line(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return 0;
    return 1;
}

/* Adds headers, and a session description unless it is empty; 0 with an exception. */
static int
add_parts(pjsip_tx_data *tdata, PyObject *headers, const char *body)
{
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(headers); i++) {
        const char *name, *value;
        PyObject *pair = PySequence_Fast_GET_ITEM(headers, i);
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
        const pj_str_t n = pj_str((char *)name), v = pj_str((char *)value);
        pjsip_msg_add_hdr(tdata->msg,
                          (pjsip_hdr *)pjsip_generic_string_hdr_create(tdata->pool, &n, &v));
    }
    if (*body) {
        const pj_str_t type = {"application", 11}, subtype = {"sdp", 3}, text = pj_str((char *)body);
        tdata->msg->body = pjsip_msg_body_create(tdata->pool, &type, &subtype, &text);
    }
    return 1;
}

PyObject *
py_kept_request(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long handle;
    const char *name;
    PyObject *given;
    int skip = 0;
    if (!PyArg_ParseTuple(args, "KsO|i", &handle, &name, &given, &skip) ||
        !require_thread("pjsip_guard.kept_request()"))
        return NULL;
    if ((strcmp(name, "BYE") && strcmp(name, "OPTIONS") && strcmp(name, "UPDATE")) || skip < 0) {
        PyErr_SetString(PyExc_ValueError, "a kept dialog sends BYE, OPTIONS and UPDATE.");
        return NULL;
    }
    pjsip_method method;
    pj_str_t text = pj_str((char *)name);
    pjsip_method_init_np(&method, &text);
    const kept_t *kept = kept_of(handle);
    if (kept == NULL)
        Py_RETURN_FALSE;
    PyObject *headers = PySequence_Fast(given, "headers must be a list of (name, value).");
    if (headers == NULL)
        return NULL;
    pjsip_dialog *dialog = kept->dialog;
    pjsip_tx_data *tdata = NULL;
    int sent = 0;
    pjsip_dlg_inc_lock(dialog);
    dialog->local.cseq += skip;
    if (pjsip_dlg_create_request(dialog, &method, -1, &tdata) == PJ_SUCCESS) {
        if (add_parts(tdata, headers, ""))
            sent = pjsip_dlg_send_request(dialog, tdata, -1, NULL) == PJ_SUCCESS;
        else
            pjsip_tx_data_dec_ref(tdata);
    }
    pjsip_dlg_dec_lock(dialog);
    Py_DECREF(headers);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(sent);
}

PyObject *
py_kept_answer(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long token;
    int code;
    const char *body;
    PyObject *given;
    if (!PyArg_ParseTuple(args, "KiOs", &token, &code, &given, &body) ||
        !require_thread("pjsip_guard.kept_answer()"))
        return NULL;
    if (code < 200 || code > 699) {
        PyErr_SetString(PyExc_ValueError, "the answer to a request must be 200 to 699.");
        return NULL;
    }
    PyObject *headers = PySequence_Fast(given, "headers must be a list of (name, value).");
    if (headers == NULL)
        return NULL;
    news_t *news = NULL;
    for (int i = 0; token && i < NEWS && news == NULL; i++)
        if (g_news[i].token == token)
            news = &g_news[i];
    const kept_t *kept = news != NULL ? kept_of(news->handle) : NULL;
    pjsip_transaction *tsx =
        kept != NULL ? pjsip_tsx_layer_find_tsx2(&news->tsx_key, PJ_TRUE) : NULL;
    int sent = 0;
    if (tsx != NULL) {
        pjsip_dialog *dialog = kept->dialog;
        pjsip_tx_data *tdata;
        pjsip_dlg_inc_lock(dialog);
        if (pjsip_dlg_create_response(dialog, news->rdata, code, NULL, &tdata) == PJ_SUCCESS) {
            if (!add_parts(tdata, headers, body)) {
                /* The far end must hear something nevertheless. */
                pjsip_tx_data_dec_ref(tdata);
                tdata = NULL;
                if (pjsip_dlg_create_response(dialog, news->rdata, PJSIP_SC_INTERNAL_SERVER_ERROR,
                                              NULL, &tdata) != PJ_SUCCESS)
                    tdata = NULL;
            }
            sent = tdata != NULL && pjsip_dlg_send_response(dialog, tsx, tdata) == PJ_SUCCESS;
        }
        pjsip_dlg_dec_lock(dialog);
        pj_grp_lock_dec_ref(tsx->grp_lock);
    }
    if (news != NULL)
        forget_news(news);
    Py_DECREF(headers);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(sent);
}

PyObject *
py_kept_close(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long handle;
    if (!PyArg_ParseTuple(args, "K", &handle) || !require_thread("pjsip_guard.kept_close()"))
        return NULL;
    kept_t *kept = kept_of(handle);
    if (kept == NULL)
        Py_RETURN_FALSE;
    for (int i = 0; i < NEWS; i++)
        if (g_news[i].handle == handle)
            forget_news(&g_news[i]);
    pjsip_dialog *dialog = kept->dialog;
    pjsip_dlg_inc_lock(dialog);
    dialog->mod_data[g_module.id] = NULL;
    memset(kept, 0, sizeof *kept);
    pjsip_dlg_dec_session(dialog, &g_module);
    pjsip_dlg_dec_lock(dialog); /* its last transaction, or this, destroys it */
    Py_RETURN_TRUE;
}

PyObject *
py_invite_sent(PyObject *Py_UNUSED(module), PyObject *args)
{
    int index;
    if (!PyArg_ParseTuple(args, "i", &index) || !require_thread("pjsip_guard.invite_sent()"))
        return NULL;
    if (index < 0 || index >= (int)pjsua_var.ua_cfg.max_calls)
        Py_RETURN_NONE;
    const pjsip_inv_session *inv = pjsua_var.calls[index].inv;
    const pjsip_transaction *tsx = inv != NULL ? inv->invite_tsx : NULL;
    if (tsx == NULL || tsx->role != PJSIP_ROLE_UAC || tsx->last_tx == NULL)
        Py_RETURN_NONE;
    const pjsip_tx_data *sent = tsx->last_tx;
    if (sent->msg->line.req.method.id != PJSIP_INVITE_METHOD || !sent->buf.start ||
        sent->buf.cur <= sent->buf.start || !pj_sockaddr_has_addr(&sent->tp_info.dst_addr))
        Py_RETURN_NONE; /* not sent yet: a connection is being made */
    char address[PJ_INET6_ADDRSTRLEN + 10];
    pj_sockaddr_print(&sent->tp_info.dst_addr, address, sizeof address, 0);
    return Py_BuildValue("(y#si)", sent->buf.start, (Py_ssize_t)(sent->buf.cur - sent->buf.start),
                         address, (int)pj_sockaddr_get_port(&sent->tp_info.dst_addr));
}

PyObject *
py_send_raw(PyObject *Py_UNUSED(module), PyObject *args)
{
    int account, port;
    const char *host, *data;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "isiy#", &account, &host, &port, &data, &length) ||
        !require_thread("pjsip_guard.send_raw()"))
        return NULL;
    const pj_str_t name = pj_str((char *)host);
    pj_sockaddr to;
    const int family = strchr(host, ':') != NULL ? pj_AF_INET6() : pj_AF_INET();
    unsigned char scratch[16];
    if (!pjsua_acc_is_valid(account) || port < 1 || port > 65535 ||
        pj_inet_pton(family, &name, scratch) != PJ_SUCCESS || /* names would be looked up */
        pj_sockaddr_init(family, &to, &name, (pj_uint16_t)port) != PJ_SUCCESS) {
        PyErr_SetString(PyExc_ValueError, "a message goes from an account to an IP address and a "
                                          "port.");
        return NULL;
    }
    pjsip_tpselector selector;
    pjsua_init_tpselector(account, &selector);
    pjsip_transport_type_e type;
    if (selector.type == PJSIP_TPSELECTOR_TRANSPORT)
        type = (pjsip_transport_type_e)selector.u.transport->key.type;
    else if (selector.type == PJSIP_TPSELECTOR_LISTENER)
        type = selector.u.listener->type;
    else
        Py_RETURN_FALSE;
    const pj_status_t status =
        pjsip_endpt_send_raw(g_endpt, type, &selector, data, (pj_size_t)length, &to,
                             pj_sockaddr_get_len(&to), NULL, NULL);
    return PyBool_FromLong(status == PJ_SUCCESS || status == PJ_EPENDING);
}

PyObject *
py_kept_state(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned long long handle;
    if (!PyArg_ParseTuple(args, "K", &handle) || !require_thread("pjsip_guard.kept_state()"))
        return NULL;
    const kept_t *kept = kept_of(handle);
    if (kept == NULL)
        Py_RETURN_NONE;
    return Py_BuildValue("{sNsisi}", "target",
                         uri_text(PJSIP_URI_IN_REQ_URI, kept->dialog->target), "local_cseq",
                         kept->dialog->local.cseq, "remote_cseq", kept->dialog->remote.cseq);
}

PyObject *
py_take_kept(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    if (list == NULL || g_untaken == 0)
        return list;
    for (int i = 0; list != NULL && i < NEWS; i++) {
        news_t *news = &g_news[i];
        if (news->taken || (!news->token && !news->status))
            continue;
        const pjsip_rx_data *rdata = news->rdata;
        PyObject *item = Py_BuildValue(
            "(KKisy#)", (unsigned long long)news->handle, (unsigned long long)news->token,
            news->status, news->method, rdata != NULL ? rdata->msg_info.msg_buf : "",
            (Py_ssize_t)(rdata != NULL && rdata->msg_info.len > 0 ? rdata->msg_info.len : 0));
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
        if (list == NULL)
            break;
        if (news->token) {
            news->taken = 1;
            g_untaken--;
        } else {
            forget_news(news);
        }
    }
    return list;
}
