/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the relay says: figures, events, what is to be recorded.
 */
#include "module_parts.h"

#include <stdlib.h>

struct leg_figures {
    uint64_t received, expected, duplicates, late, malformed, wrong_source, wrong_type, refused;
    uint64_t sent, unsent, digits_dropped;
    double jitter_ms, rtt_ms, reported_loss;
    uint64_t reports, rtcp_malformed;
    ns_t last_at;
    bool open;
};

static struct leg_figures figures_of(const struct leg *leg) {
    struct leg_figures f = {
        .received = receiver_received(&leg->rx), .expected = receiver_expected(&leg->rx),
        .duplicates = leg->rx.duplicates, .late = leg->rx.late, .malformed = leg->malformed,
        .wrong_source = leg->wrong_source, .wrong_type = leg->wrong_type,
        .refused = leg->srtp_refused, .sent = leg->out.sent, .unsent = leg->unsent,
        .digits_dropped = leg->digits.dropped,
        .jitter_ms = receiver_jitter_ms(&leg->rx, leg->codec == CODEC_OPUS ? 48000 : 8000),
        .rtt_ms = leg->rtcp.rtt_ms,
        .reported_loss = leg->rtcp.told ? leg->rtcp.fraction_lost * 100.0 / 256 : -1,
        .reports = leg->rtcp.reports, .rtcp_malformed = leg->rtcp.malformed,
        .last_at = leg->last_at, .open = leg->open,
    };
    return f;
}

PyObject *core_stats(Core *self, PyObject *args) {
    unsigned int handle;
    if (!PyArg_ParseTuple(args, "I", &handle)) return NULL;
    struct leg_figures legs[LEGS] = {{0}};
    uint64_t tapped = 0, tap_dropped = 0, recorded = 0, record_dropped = 0;
    struct session *s;
    LOCK(self);
    s = session_find(self->core, handle);
    if (s) {
        for (int i = 0; i < LEGS; i++) legs[i] = figures_of(&s->leg[i]);
        tapped = s->tapped;
        tap_dropped = s->tap_dropped;
        recorded = s->recorded;
        record_dropped = s->record_dropped;
    }
    UNLOCK(self);
    if (!s) return no_session();
    PyObject *list = PyList_New(LEGS);
    for (int i = 0; list && i < LEGS; i++) {
        const struct leg_figures *f = &legs[i];
        PyObject *leg;
        if (f->open) {
            leg = Py_BuildValue(
                "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:d,s:d,s:d,s:K,s:K,s:d}",
                "received", f->received, "expected", f->expected, "duplicates", f->duplicates,
                "late", f->late, "malformed", f->malformed, "wrong_source", f->wrong_source,
                "wrong_payload_type", f->wrong_type, "srtp_refused", f->refused, "sent", f->sent,
                "unsent", f->unsent, "digits_dropped", f->digits_dropped, "jitter_ms", f->jitter_ms,
                "rtt_ms", f->rtt_ms, "reported_loss_pct", f->reported_loss, "reports", f->reports,
                "rtcp_malformed", f->rtcp_malformed, "last_at", (double)f->last_at / 1e9);
        } else {
            leg = Py_NewRef(Py_None);
        }
        if (!leg) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, leg);
    }
    if (!list) return NULL;
    return Py_BuildValue("(N{s:K,s:K,s:K,s:K})", list, "tapped", tapped, "tap_dropped", tap_dropped,
                         "recorded", recorded, "record_dropped", record_dropped);
}

/* Newest accepted packet of each leg, in seconds of the monotonic clock, for every session. */
PyObject *core_activity(Core *self, PyObject *unused) {
    (void)unused;
    struct { uint32_t handle; double last[LEGS]; } *rows = NULL;
    int count = 0;
    LOCK(self);
    rows = malloc(sizeof *rows * (size_t)(self->core->sessions + 1));
    for (int slot = 0; rows && slot < MAX_SESSIONS && count < self->core->sessions; slot++) {
        const struct session *s = self->core->session[slot];
        if (!s) continue;
        rows[count].handle = s->handle;
        for (int i = 0; i < LEGS; i++) rows[count].last[i] = (double)s->leg[i].last_at / 1e9;
        count++;
    }
    UNLOCK(self);
    if (!rows) return PyErr_NoMemory();
    PyObject *result = PyDict_New();
    for (int i = 0; result && i < count; i++) {
        PyObject *key = PyLong_FromUnsignedLong(rows[i].handle);
        PyObject *value = Py_BuildValue("(ddd)", rows[i].last[0], rows[i].last[1], rows[i].last[2]);
        if (!key || !value || PyDict_SetItem(result, key, value) != 0) Py_CLEAR(result);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    free(rows);
    return result;
}

PyObject *core_totals(Core *self, PyObject *unused) {
    (void)unused;
    const struct core *core = self->core;
    uint64_t packets, malformed, wrong_source, tapped, tap_dropped, record_dropped, events_dropped,
        late_ticks, backlog;
    int sessions;
    LOCK(self);
    packets = core->packets;
    malformed = core->past_malformed;
    wrong_source = core->past_wrong_source;
    for (int slot = 0, left = core->sessions; slot < MAX_SESSIONS && left; slot++) {
        const struct session *s = core->session[slot];
        if (!s) continue;
        left--;
        for (int i = 0; i < LEGS; i++) {
            malformed += s->leg[i].malformed;
            wrong_source += s->leg[i].wrong_source;
        }
    }
    sessions = core->sessions;
    tapped = core->tapped;
    tap_dropped = core->tap_dropped;
    record_dropped = core->record_dropped;
    events_dropped = core->events_dropped;
    late_ticks = core->late_ticks;
    backlog = core->record_bytes;
    UNLOCK(self);
    return Py_BuildValue("{s:i,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "sessions", sessions, "packets",
                         packets, "malformed", malformed, "wrong_source", wrong_source, "tapped",
                         tapped, "tap_dropped", tap_dropped, "record_dropped", record_dropped,
                         "events_dropped", events_dropped, "late_ticks", late_ticks, "record_backlog",
                         backlog);
}

static PyObject *event_object(const struct event *e) {
    PyObject *spans;
    switch (e->kind) {
        case EVENT_PLAYED:
            spans = PyList_New(e->spans);
            for (int i = 0; spans && i < e->spans; i++) {
                PyList_SET_ITEM(spans, i, Py_BuildValue("(dd)", (double)e->span[i][0] / 1e9,
                                                        (double)e->span[i][1] / 1e9));
            }
            if (!spans) return NULL;
            return Py_BuildValue("(sIiKiKKN)", "played", e->handle, (int)e->leg,
                                 (unsigned long long)e->play_id, (int)e->end, e->frames, e->failed,
                                 spans);
        case EVENT_CODE:
            return Py_BuildValue("(sIii)", "code", e->handle, (int)e->leg, e->code);
        case EVENT_UNDELIVERED:
            return Py_BuildValue("(sIiC)", "undelivered", e->handle, (int)e->leg, e->digit);
        case EVENT_KEY:
            return Py_BuildValue("(sIiC)", "key", e->handle, (int)e->leg, e->digit);
        default:
            return Py_BuildValue("(sIi)", "tap_started", e->handle, (int)e->leg);
    }
}

PyObject *core_events(Core *self, PyObject *unused) {
    (void)unused;
    struct event *events;
    int count;
    LOCK(self);
    events = self->core->events;
    count = self->core->event_count;
    self->core->events = NULL;
    self->core->event_count = self->core->event_room = 0;
    if (self->engine) engine_calm(self->engine);
    UNLOCK(self);
    PyObject *list = PyList_New(count);
    for (int i = 0; list && i < count; i++) {
        PyObject *event = event_object(&events[i]);
        if (event) PyList_SET_ITEM(list, i, event);
        else Py_CLEAR(list);
    }
    free(events);
    return list;
}

PyObject *core_recorded(Core *self, PyObject *unused) {
    (void)unused;
    struct record_block *first;
    size_t size;
    LOCK(self);
    first = self->core->record_first;
    size = self->core->record_bytes;
    self->core->record_first = self->core->record_last = NULL;
    self->core->record_bytes = 0;
    UNLOCK(self);
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    char *at = result ? PyBytes_AS_STRING(result) : NULL;
    while (first) {
        struct record_block *next = first->next;
        if (at) {
            memcpy(at, first->data, first->used);
            at += first->used;
        }
        free(first);
        first = next;
    }
    return result;
}
