/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The extension module sipbridge.relay_core: Python sets flows up and reads what the relay says.
 * The signatures are in relay_core.pyi.
 *
 * Python's own lock is let go before the core's is taken, and taken again after that one is let
 * go: neither waits for the other.
 */
#include "module_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

int ear_add_type(PyObject *module); /* ear_type.c */

/* ---------------------------------------------------------------------------------- Core */

bool endpoint_parse(struct endpoint *e, const char *host, int port) {
    memset(e, 0, sizeof *e);
    if (!host[0]) return true;
    if (inet_pton(AF_INET, host, &e->at.four.sin_addr) == 1) {
        e->at.four.sin_family = AF_INET;
        e->size = sizeof e->at.four;
    } else if (inet_pton(AF_INET6, host, &e->at.six.sin6_addr) == 1) {
        e->at.six.sin6_family = AF_INET6;
        e->size = sizeof e->at.six;
    } else {
        PyErr_Format(PyExc_ValueError, "%s is not an IP address", host);
        return false;
    }
    if (port < 0 || port > 65535) {
        PyErr_Format(PyExc_ValueError, "%d is not a port", port);
        return false;
    }
    endpoint_set_port(e, (uint16_t)port);
    return true;
}

static void core_dealloc(Core *self) {
    if (self->engine) {
        Py_BEGIN_ALLOW_THREADS
        engine_free(self->engine);
        Py_END_ALLOW_THREADS
    }
    if (self->core) {
        self->core->wake = NULL;
        core_free(self->core);
        pthread_mutex_destroy(&self->core->lock);
        free(self->core);
    }
    for (int i = 0; i < self->sent_count; i++) free(self->sent[i].data);
    for (int i = 0; i < self->tapped_count; i++) free(self->tapped[i]);
    free(self->sent);
    free(self->tapped);
    free(self->tapped_size);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static bool parse_codes(struct codes *codes, PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count > MAX_CODES) {
        PyErr_SetString(PyExc_ValueError, "too many feature codes");
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *code = PyUnicode_AsUTF8(PyList_GET_ITEM(list, i));
        if (!code) return false;
        if (!code[0] || strlen(code) > MAX_CODE_DIGITS) {
            PyErr_SetString(PyExc_ValueError, "a feature code has 1 to 8 digits");
            return false;
        }
        strcpy(codes->code[i], code);
    }
    codes->count = (int)count;
    return true;
}

/* By name; None: the defaults. */
static bool ear_profile_parse(PyObject *given, struct ear_profile *profile) {
    ear_profile_default(profile);
    if (given == Py_None) return true;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    if (!PyDict_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "the ear's profile is a dict or None");
        return false;
    }
    while (PyDict_Next(given, &at, &key, &value)) {
        const char *name = PyUnicode_AsUTF8(key);
        double number = PyFloat_AsDouble(value);
        if (!name || PyErr_Occurred()) return false;
        size_t i = 0;
        while (i < ear_profile_field_count && strcmp(ear_profile_fields[i].name, name) != 0) i++;
        if (i == ear_profile_field_count) {
            PyErr_Format(PyExc_ValueError, "the ear's profile has no field %s", name);
            return false;
        }
        *(float *)(void *)((char *)profile + ear_profile_fields[i].offset) = (float)number;
    }
    return true;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"tap_path", "codes", "latch_window_s", "ear", "manual", NULL};
    const char *tap_path;
    PyObject *codes, *profile = Py_None;
    double window_s;
    int manual = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sO!d|O$p", names, &tap_path, &PyList_Type,
                                     &codes, &window_s, &profile, &manual))
        return NULL;
    Core *self = (Core *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->core = calloc(1, sizeof *self->core);
    if (!self->core) goto memory;
    pthread_mutexattr_t inherit;
    pthread_mutexattr_init(&inherit);
    /* A relay thread of high priority that waits for Python lends it its own (real-time systems
     * call the other case priority inversion). */
    pthread_mutexattr_setprotocol(&inherit, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&self->core->lock, &inherit);
    pthread_mutexattr_destroy(&inherit);
    if (!core_init(self->core)) goto memory;
    self->core->latch_window = (ns_t)(window_s * 1e9);
    if (!parse_codes(&self->core->codes, codes) || !ear_profile_parse(profile, &self->core->ear))
        goto failed;
    if (manual) {
        self->sent = calloc(CAPTURED, sizeof *self->sent);
        self->tapped = calloc(CAPTURED, sizeof *self->tapped);
        self->tapped_size = calloc(CAPTURED, sizeof *self->tapped_size);
        if (!self->sent || !self->tapped || !self->tapped_size) goto memory;
        self->core->engine = self;
        self->core->output = manual_output;
        self->core->tap_send = manual_tap;
    } else {
        if (strlen(tap_path) > 107) {
            PyErr_SetString(PyExc_ValueError, "the path of the tap's socket is too long");
            goto failed;
        }
        self->engine = engine_new(self->core, tap_path);
        if (!self->engine) {
            PyErr_SetFromErrno(PyExc_OSError);
            goto failed;
        }
    }
    return (PyObject *)self;
memory:
    PyErr_NoMemory();
failed:
    Py_DECREF(self);
    return NULL;
}

static PyObject *core_start(Core *self, PyObject *args) {
    int priority;
    if (!PyArg_ParseTuple(args, "i", &priority)) return NULL;
    int error = self->engine ? engine_start(self->engine, priority) : EINVAL;
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyUnicode_FromString(engine_scheduling(self->engine));
}

static PyObject *core_stop(Core *self, PyObject *unused) {
    (void)unused;
    if (self->engine) {
        Py_BEGIN_ALLOW_THREADS
        engine_stop(self->engine);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *core_event_fd(Core *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(self->engine ? engine_event_fd(self->engine) : -1);
}

static bool parse_networks(struct networks *networks, PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count > MAX_NETWORKS) {
        PyErr_Format(PyExc_ValueError, "more than %d networks on one side", MAX_NETWORKS);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *host;
        int bits;
        struct endpoint e;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "si", &host, &bits) ||
            !endpoint_parse(&e, host, 0))
            return false;
        struct network *n = &networks->list[i];
        bool four = e.at.any.sa_family == AF_INET;
        if (!e.size || bits < 0 || bits > (four ? 32 : 128)) {
            PyErr_SetString(PyExc_ValueError, "a network is an address and a prefix length");
            return false;
        }
        n->family = (uint8_t)e.at.any.sa_family;
        n->bits = (uint8_t)bits;
        if (four) memcpy(n->address, &e.at.four.sin_addr, 4);
        else memcpy(n->address, &e.at.six.sin6_addr, 16);
    }
    networks->count = (int)count;
    return true;
}

PyObject *no_session(void) {
    PyErr_SetString(PyExc_KeyError, "no such session or leg");
    return NULL;
}

static PyObject *core_open(Core *self, PyObject *args) {
    Py_buffer id;
    PyObject *caller_networks, *agent_networks;
    if (!PyArg_ParseTuple(args, "y*O!O!", &id, &PyList_Type, &caller_networks, &PyList_Type,
                          &agent_networks))
        return NULL;
    struct networks networks[2] = {{0}, {0}};
    uint8_t call_id[CALL_ID];
    bool fits = id.len == CALL_ID;
    if (fits) memcpy(call_id, id.buf, CALL_ID);
    PyBuffer_Release(&id);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a call id has 16 bytes");
        return NULL;
    }
    if (!parse_networks(&networks[0], caller_networks) ||
        !parse_networks(&networks[1], agent_networks))
        return NULL;
    uint32_t handle = 0;
    LOCK(self);
    struct session *s = session_open(self->core, call_id);
    if (s) {
        memcpy(s->networks, networks, sizeof networks);
        handle = s->handle;
    }
    UNLOCK(self);
    if (!handle) return PyErr_NoMemory();
    return PyLong_FromUnsignedLong(handle);
}

static PyObject *core_add_leg(Core *self, PyObject *args) {
    unsigned int handle, name;
    int rtp_fd, rtcp_fd, error = 0;
    bool found = false;
    if (!PyArg_ParseTuple(args, "IIii", &handle, &name, &rtp_fd, &rtcp_fd)) return NULL;
    LOCK(self);
    struct session *s = session_find(self->core, handle);
    found = s && name < LEGS && !s->leg[name].open;
    if (found) {
        ns_t now = NOW(self);
        leg_open(self->core, s, (enum leg_name)name, rtp_fd, rtcp_fd, now);
        if (self->engine) error = engine_watch(self->engine, s, &s->leg[name], false);
        if (error) leg_close(self->core, s, (enum leg_name)name, 0);
    }
    UNLOCK(self);
    if (!found) return no_session();
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

struct leg *find_leg(struct core *core, unsigned int handle, unsigned int name,
                     struct session **session) {
    struct session *s = *session = session_find(core, handle);
    return s && name < LEGS && s->leg[name].open ? &s->leg[name] : NULL;
}

static PyObject *core_remove_leg(Core *self, PyObject *args) {
    unsigned int handle, name;
    if (!PyArg_ParseTuple(args, "II", &handle, &name)) return NULL;
    struct session *s;
    struct leg *leg;
    LOCK(self);
    leg = find_leg(self->core, handle, name, &s);
    if (leg) {
        if (self->engine) engine_unwatch(self->engine, leg);
        leg_close(self->core, s, (enum leg_name)name, clock_ns(CLOCK_REALTIME));
    }
    UNLOCK(self);
    if (!leg) return no_session();
    Py_RETURN_NONE;
}

static PyObject *core_promote(Core *self, PyObject *args) {
    unsigned int handle;
    if (!PyArg_ParseTuple(args, "I", &handle)) return NULL;
    bool done = false;
    LOCK(self);
    struct session *s = session_find(self->core, handle);
    done = s && s->leg[HELPER].open && !s->leg[AGENT].open;
    if (done) {
        leg_promote(self->core, s);
        if (self->engine) engine_watch(self->engine, s, &s->leg[AGENT], true);
    }
    UNLOCK(self);
    if (!done) return no_session();
    Py_RETURN_NONE;
}

static PyObject *core_close_call(Core *self, PyObject *args) {
    unsigned int handle;
    if (!PyArg_ParseTuple(args, "I", &handle)) return NULL;
    struct session *s;
    LOCK(self);
    s = session_find(self->core, handle);
    if (s) {
        for (int i = 0; i < LEGS && self->engine; i++) {
            if (s->leg[i].open) engine_unwatch(self->engine, &s->leg[i]);
        }
        session_close(self->core, s, NOW(self), clock_ns(CLOCK_REALTIME));
    }
    UNLOCK(self);
    if (!s) return no_session();
    Py_RETURN_NONE;
}

/* One direction of SRTP (RFC 3711); suite numbers are those of relay_core.pyi. */
static srtp_t make_srtp(int suite, const uint8_t *key, Py_ssize_t size, bool receives) {
    static const Py_ssize_t sizes[] = {30, 30, 28, 44};
    if (suite < 0 || suite > 3 || size != sizes[suite]) {
        PyErr_SetString(PyExc_ValueError, "the SRTP key does not fit its suite");
        return NULL;
    }
    srtp_policy_t policy;
    memset(&policy, 0, sizeof policy);
    switch (suite) {
        case 0: srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtp); break;
        case 1: srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(&policy.rtp); break;
        case 2: srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp); break;
        default: srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy.rtp); break;
    }
    policy.rtcp = policy.rtp;
    /* Only RTP's tag is short in the suite _32 (RFC 4568 section 6.2.2). */
    if (suite == 1) srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtcp);
    policy.ssrc.type = receives ? ssrc_any_inbound : ssrc_any_outbound;
    policy.key = (unsigned char *)key;
    policy.window_size = 512;
    srtp_t made = NULL;
    if (srtp_create(&made, &policy) != srtp_err_status_ok) {
        PyErr_SetString(PyExc_RuntimeError, "libsrtp refused the key or lacks the suite");
        return NULL;
    }
    return made;
}

static PyObject *core_negotiate(Core *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"handle", "leg", "sdp", "rtcp_port", "signalling", "codec", "voice_type",
                            "event_type", "noise_type", "ptime_ms", "protect", "srtp", NULL};
    unsigned int handle, name;
    const char *host, *signalling;
    int port, rtcp_port, codec, voice_type, event_type, noise_type, ptime_ms, protect;
    PyObject *srtp;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "II(si)isiiiiipO", names, &handle, &name, &host,
                                     &port, &rtcp_port, &signalling, &codec, &voice_type,
                                     &event_type, &noise_type, &ptime_ms, &protect, &srtp))
        return NULL;
    struct leg_update update = {.codec = codec, .voice_type = voice_type, .event_type = event_type,
                                .noise_type = noise_type, .ptime_ms = (uint32_t)ptime_ms,
                                .protect = protect != 0};
    if (!endpoint_parse(&update.sdp, host, port) ||
        !endpoint_parse(&update.signalling, signalling, 0))
        return NULL;
    if ((!is_g711(codec) && codec != CODEC_G722 && codec != CODEC_OPUS) || voice_type < 0 ||
        voice_type > 127 || event_type < -1 || event_type > 127 || noise_type < -1 ||
        noise_type > 127 || ptime_ms < 10 || ptime_ms > 60 || rtcp_port < 0 || rtcp_port > 65535) {
        PyErr_SetString(PyExc_ValueError, "a codec, payload type, ptime or port out of range");
        return NULL;
    }
    update.rtcp = update.sdp;
    endpoint_set_port(&update.rtcp, (uint16_t)(rtcp_port ? rtcp_port : port + 1));
    srtp_t in = NULL, out = NULL;
    /* A direction without a key keeps the context of before. */
    bool keep_in = false, keep_out = false;
    if (PyTuple_Check(srtp)) {
        int suite;
        const char *send, *receive;
        Py_ssize_t send_size, receive_size;
        if (!PyArg_ParseTuple(srtp, "iz#z#", &suite, &send, &send_size, &receive, &receive_size))
            return NULL;
        keep_out = send == NULL;
        keep_in = receive == NULL;
        if (send) out = make_srtp(suite, (const uint8_t *)send, send_size, false);
        if (receive && (out || keep_out)) {
            in = make_srtp(suite, (const uint8_t *)receive, receive_size, true);
        }
        if ((!out && !keep_out) || (!in && !keep_in)) {
            if (out) srtp_dealloc(out);
            return NULL;
        }
    }
    struct session *s;
    struct leg *leg;
    bool keyless = false;
    LOCK(self);
    leg = find_leg(self->core, handle, name, &s);
    /* Nothing to keep: the leg would be plain where SRTP was agreed. */
    if (leg) keyless = (keep_in && !leg->srtp_in) || (keep_out && !leg->srtp_out);
    if (leg && !keyless) {
        leg_negotiate(s, leg, &update, NOW(self));
        if (!keep_in) {
            srtp_t old = leg->srtp_in;
            leg->srtp_in = in;
            in = old;
        }
        if (!keep_out) {
            srtp_t old = leg->srtp_out;
            leg->srtp_out = out;
            out = old;
        }
    }
    UNLOCK(self);
    if (in) srtp_dealloc(in);
    if (out) srtp_dealloc(out);
    if (!leg) return no_session();
    if (keyless) {
        PyErr_SetString(PyExc_ValueError, "there is no SRTP key of before to keep");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *core_allow(Core *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"handle", "caller_to_agent", "agent_to_caller", "tap", "record",
                            "paused", "conference", "keys", NULL};
    unsigned int handle;
    int to_agent, to_caller, tap, record, paused, conference, keys = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Ipppppp|p", names, &handle, &to_agent,
                                     &to_caller, &tap, &record, &paused, &conference, &keys))
        return NULL;
    struct session *s;
    LOCK(self);
    s = session_find(self->core, handle);
    if (s) {
        session_allow(self->core, s, to_agent, to_caller, tap, record, paused, conference,
                      keys, NOW(self));
    }
    UNLOCK(self);
    if (!s) return no_session();
    Py_RETURN_NONE;
}

static PyObject *core_ear(Core *self, PyObject *args) {
    unsigned int handle;
    int soften, levelling;
    if (!PyArg_ParseTuple(args, "Ipp", &handle, &soften, &levelling)) return NULL;
    struct session *s;
    LOCK(self);
    s = session_find(self->core, handle);
    for (int i = AGENT; s && i < LEGS; i++) {
        if (s->leg[i].ear) ear_set(s->leg[i].ear, soften, levelling);
    }
    UNLOCK(self);
    if (!s) return no_session();
    Py_RETURN_NONE;
}

static PyObject *core_take_dose(Core *self, PyObject *args) {
    unsigned int handle, name;
    double sum = 0;
    uint64_t samples = 0;
    if (!PyArg_ParseTuple(args, "II", &handle, &name)) return NULL;
    struct session *s;
    struct leg *leg;
    LOCK(self);
    leg = find_leg(self->core, handle, name, &s);
    if (leg && leg->ear) ear_take_dose(leg->ear, &sum, &samples);
    UNLOCK(self);
    if (!leg) return no_session();
    return Py_BuildValue("(dK)", sum, (unsigned long long)samples);
}

static PyObject *core_take_voice(Core *self, PyObject *args) {
    unsigned int handle;
    uint32_t spoken_ms = 0;
    if (!PyArg_ParseTuple(args, "I", &handle)) return NULL;
    struct session *s;
    LOCK(self);
    s = session_find(self->core, handle);
    if (s) spoken_ms = voice_take_ms(&s->voice);
    UNLOCK(self);
    if (!s) return no_session();
    return PyLong_FromUnsignedLong(spoken_ms);
}

static PyObject *core_play(Core *self, PyObject *args) {
    unsigned int handle, name;
    unsigned long long id;
    PyObject *list;
    int loop, mix;
    if (!PyArg_ParseTuple(args, "IIKO!pp", &handle, &name, &id, &PyList_Type, &list, &loop, &mix))
        return NULL;
    struct clip *clips[MAX_CLIPS];
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count < 1 || count > MAX_CLIPS) {
        PyErr_Format(PyExc_ValueError, "1 to %d files can be played in one go", MAX_CLIPS);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *clip = PyList_GET_ITEM(list, i);
        if (!PyObject_TypeCheck(clip, &ClipType)) {
            PyErr_SetString(PyExc_TypeError, "not a Clip");
            return NULL;
        }
        clips[i] = ((Clip *)clip)->clip;
    }
    bool begun = false;
    /* Python's lock is let go, and the list is not ours: somebody may empty it. */
    for (Py_ssize_t i = 0; i < count; i++) atomic_fetch_add(&clips[i]->users, 1);
    struct session *s;
    struct leg *leg;
    LOCK(self);
    leg = find_leg(self->core, handle, name, &s);
    if (leg) {
        begun = play_start(self->core, s, leg, id, clips, (int)count, loop, mix,
                           NOW(self));
    }
    UNLOCK(self);
    for (Py_ssize_t i = 0; i < count; i++) clip_release(clips[i]);
    if (!leg) return no_session();
    return PyBool_FromLong(begun);
}

static PyObject *core_stop_play(Core *self, PyObject *args) {
    unsigned int handle, name;
    if (!PyArg_ParseTuple(args, "II", &handle, &name)) return NULL;
    bool stopped = false;
    struct session *s;
    struct leg *leg;
    LOCK(self);
    leg = find_leg(self->core, handle, name, &s);
    if (leg) stopped = play_stop(self->core, s, leg, clock_ns(CLOCK_REALTIME));
    UNLOCK(self);
    if (!leg) return no_session();
    return PyBool_FromLong(stopped);
}

static PyObject *core_digit(Core *self, PyObject *args) {
    unsigned int handle, name;
    int digit;
    if (!PyArg_ParseTuple(args, "IIC", &handle, &name, &digit)) return NULL;
    struct session *s;
    struct leg *leg;
    LOCK(self);
    leg = find_leg(self->core, handle, name, &s);
    if (leg) leg_digit(self->core, s, leg, digit < 128 ? (char)digit : 0, NOW(self));
    UNLOCK(self);
    if (!leg) return no_session();
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"start", (PyCFunction)core_start, METH_VARARGS, NULL},
    {"stop", (PyCFunction)core_stop, METH_NOARGS, NULL},
    {"open", (PyCFunction)core_open, METH_VARARGS, NULL},
    {"add_leg", (PyCFunction)core_add_leg, METH_VARARGS, NULL},
    {"remove_leg", (PyCFunction)core_remove_leg, METH_VARARGS, NULL},
    {"promote", (PyCFunction)core_promote, METH_VARARGS, NULL},
    {"close_call", (PyCFunction)core_close_call, METH_VARARGS, NULL},
    {"negotiate", (PyCFunction)(void (*)(void))core_negotiate, METH_VARARGS | METH_KEYWORDS, NULL},
    {"allow", (PyCFunction)(void (*)(void))core_allow, METH_VARARGS | METH_KEYWORDS, NULL},
    {"ear", (PyCFunction)core_ear, METH_VARARGS, NULL},
    {"take_dose", (PyCFunction)core_take_dose, METH_VARARGS, NULL},
    {"take_voice", (PyCFunction)core_take_voice, METH_VARARGS, NULL},
    {"play", (PyCFunction)core_play, METH_VARARGS, NULL},
    {"stop_play", (PyCFunction)core_stop_play, METH_VARARGS, NULL},
    {"digit", (PyCFunction)core_digit, METH_VARARGS, NULL},
    {"stats", (PyCFunction)core_stats, METH_VARARGS, NULL},
    {"activity", (PyCFunction)core_activity, METH_NOARGS, NULL},
    {"totals", (PyCFunction)core_totals, METH_NOARGS, NULL},
    {"events", (PyCFunction)core_events, METH_NOARGS, NULL},
    {"recorded", (PyCFunction)core_recorded, METH_NOARGS, NULL},
    {"inject", (PyCFunction)core_inject, METH_VARARGS, NULL},
    {"tick", (PyCFunction)core_tick, METH_VARARGS, NULL},
    {"sent", (PyCFunction)core_sent, METH_NOARGS, NULL},
    {"tapped", (PyCFunction)core_tapped, METH_NOARGS, NULL},
    {"refuse", (PyCFunction)core_refuse, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef core_properties[] = {
    {"event_fd", (getter)core_event_fd, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "sipbridge.relay_core.Core",
    .tp_basicsize = sizeof(Core),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "The relay of one media worker.",
    .tp_new = core_new,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_methods = core_methods,
    .tp_getset = core_properties,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "sipbridge.relay_core",
    .m_doc = "The media relay in C.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit_relay_core(void) {
    if (srtp_init() != srtp_err_status_ok) {
        PyErr_SetString(PyExc_ImportError, "libsrtp2 cannot be initialised");
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyModule_AddType(module, &CoreType) != 0 ||
        PyModule_AddType(module, &ClipType) != 0 || ear_add_type(module) != 0 ||
        PyModule_AddStringConstant(module, "SRTP_VERSION", srtp_get_version_string()) != 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
