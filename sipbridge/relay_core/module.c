/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The extension module sipbridge.relay_core: Python sets flows up and reads what the relay says.
 * The signatures are in relay_core.pyi.
 *
 * Python's own lock is let go before the core's is taken, and taken again after that one is let
 * go: neither waits for the other.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "engine.h"

int ear_add_type(PyObject *module); /* ear_type.c */

enum { CAPTURED = 65536 /* datagrams that a manual core keeps for its test */ };

struct captured {
    uint32_t handle;
    uint8_t leg;
    bool rtcp;
    struct endpoint to;
    size_t size;
    uint8_t *data;
};

typedef struct {
    PyObject_HEAD
    struct core *core;
    struct engine *engine; /* NULL: manual */
    struct captured *sent;
    int sent_count;
    uint8_t **tapped;
    size_t *tapped_size;
    int tapped_count;
    int refuse;  /* errno that a manual core's output gives */
    ns_t now;    /* a manual core's clock */
} Core;

typedef struct {
    PyObject_HEAD
    struct clip *clip;
} Clip;

static PyTypeObject ClipType;

static ns_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (ns_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* A manual core's time is what its test says. */
#define NOW(self) ((self)->engine ? clock_ns(CLOCK_MONOTONIC) : (self)->now)

#define LOCK(self)            \
    Py_BEGIN_ALLOW_THREADS    \
    pthread_mutex_lock(&(self)->core->lock)
#define UNLOCK(self)                           \
    pthread_mutex_unlock(&(self)->core->lock); \
    Py_END_ALLOW_THREADS

/* ---------------------------------------------------------------------------------- Clip */

static PyObject *clip_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"mulaw", "alaw", "codec", "packets", "packet_ms", NULL};
    Py_buffer mulaw = {0}, alaw = {0};
    int codec = CODEC_PCMU, packet_ms = 20;
    PyObject *packets = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|y*y*$iO!i", names, &mulaw, &alaw, &codec,
                                     &PyList_Type, &packets, &packet_ms))
        return NULL;
    Clip *self = NULL;
    struct clip *clip = calloc(1, sizeof *clip);
    if (!clip) {
        PyErr_NoMemory();
        goto done;
    }
    atomic_init(&clip->users, 1);
    clip->codec = codec;
    if (is_g711(codec)) {
        clip->codec = CODEC_PCMU;
        if (mulaw.len == 0 || mulaw.len != alaw.len) {
            PyErr_SetString(PyExc_ValueError, "a G.711 clip needs as many bytes in both laws");
            goto done;
        }
        clip->samples = (size_t)mulaw.len;
        for (int i = 0; i < 2; i++) {
            clip->law[i] = malloc(clip->samples);
            if (!clip->law[i]) {
                PyErr_NoMemory();
                goto done;
            }
            memcpy(clip->law[i], i ? alaw.buf : mulaw.buf, clip->samples);
        }
    } else {
        Py_ssize_t count = packets ? PyList_GET_SIZE(packets) : 0;
        size_t size = 0;
        if (count == 0 || packet_ms < 5 || packet_ms > 60) {
            PyErr_SetString(PyExc_ValueError, "a clip needs packets of 5 to 60 ms");
            goto done;
        }
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *packet = PyList_GET_ITEM(packets, i);
            if (!PyBytes_Check(packet) || PyBytes_GET_SIZE(packet) > RTP_LONGEST - RTP_HEADER) {
                PyErr_SetString(PyExc_ValueError, "a packet is bytes that fit a datagram");
                goto done;
            }
            size += (size_t)PyBytes_GET_SIZE(packet);
        }
        clip->packet_ms = (uint32_t)packet_ms;
        clip->packets = (size_t)count;
        clip->offsets = malloc(((size_t)count + 1) * sizeof *clip->offsets);
        clip->data = malloc(size ? size : 1);
        if (!clip->offsets || !clip->data) {
            PyErr_NoMemory();
            goto done;
        }
        uint32_t at = 0;
        for (Py_ssize_t i = 0; i < count; i++) {
            PyObject *packet = PyList_GET_ITEM(packets, i);
            clip->offsets[i] = at;
            memcpy(clip->data + at, PyBytes_AS_STRING(packet), (size_t)PyBytes_GET_SIZE(packet));
            at += (uint32_t)PyBytes_GET_SIZE(packet);
        }
        clip->offsets[count] = at;
    }
    self = (Clip *)type->tp_alloc(type, 0);
    if (self) {
        self->clip = clip;
        clip = NULL;
    }
done:
    if (clip) clip_release(clip);
    if (mulaw.obj) PyBuffer_Release(&mulaw);
    if (alaw.obj) PyBuffer_Release(&alaw);
    return (PyObject *)self;
}

static void clip_dealloc(Clip *self) {
    clip_release(self->clip);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyTypeObject ClipType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "sipbridge.relay_core.Clip",
    .tp_basicsize = sizeof(Clip),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "An encoded prompt.",
    .tp_new = clip_new,
    .tp_dealloc = (destructor)clip_dealloc,
};

/* ----------------------------------------------------------------------- a core without I/O */

static int capture(struct core *core, struct session *s, struct leg *leg, bool rtcp,
                   const uint8_t *packet, size_t size, const struct endpoint *to) {
    Core *self = core->engine;
    if (self->refuse) return self->refuse;
    if (self->sent_count == CAPTURED) return ENOBUFS;
    struct captured *c = &self->sent[self->sent_count];
    c->data = malloc(size);
    if (!c->data) return ENOMEM;
    memcpy(c->data, packet, size);
    c->handle = s->handle;
    c->leg = (uint8_t)leg->name;
    c->rtcp = rtcp;
    c->to = *to;
    c->size = size;
    self->sent_count++;
    return 0;
}

static int capture_tap(struct core *core, const uint8_t *datagram, size_t size) {
    Core *self = core->engine;
    if (self->refuse) return self->refuse == EAGAIN ? -1 : 0;
    if (self->tapped_count == CAPTURED) return 0;
    uint8_t *copy = malloc(size);
    if (!copy) return 0;
    memcpy(copy, datagram, size);
    self->tapped[self->tapped_count] = copy;
    self->tapped_size[self->tapped_count++] = size;
    return 1;
}

/* ---------------------------------------------------------------------------------- Core */

static bool endpoint_parse(struct endpoint *e, const char *host, int port) {
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

static PyObject *endpoint_object(const struct endpoint *e) {
    char host[INET6_ADDRSTRLEN] = "";
    if (e->size) {
        const void *at = e->at.any.sa_family == AF_INET ? (const void *)&e->at.four.sin_addr
                                                        : (const void *)&e->at.six.sin6_addr;
        inet_ntop(e->at.any.sa_family, at, host, sizeof host);
    }
    return Py_BuildValue("(si)", host, e->size ? (int)endpoint_port(e) : 0);
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
        self->core->output = capture;
        self->core->tap_send = capture_tap;
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

static PyObject *no_session(void) {
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

static struct leg *find_leg(struct core *core, unsigned int handle, unsigned int name,
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
                            "paused", "conference", NULL};
    unsigned int handle;
    int to_agent, to_caller, tap, record, paused, conference;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Ipppppp", names, &handle, &to_agent,
                                     &to_caller, &tap, &record, &paused, &conference))
        return NULL;
    struct session *s;
    LOCK(self);
    s = session_find(self->core, handle);
    if (s) {
        session_allow(self->core, s, to_agent, to_caller, tap, record, paused, conference,
                      NOW(self));
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

/* ------------------------------------------------------------------------------ what it says */

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

static PyObject *core_stats(Core *self, PyObject *args) {
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
static PyObject *core_activity(Core *self, PyObject *unused) {
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

static PyObject *core_totals(Core *self, PyObject *unused) {
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
        default:
            return Py_BuildValue("(sIi)", "tap_started", e->handle, (int)e->leg);
    }
}

static PyObject *core_events(Core *self, PyObject *unused) {
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

static PyObject *core_recorded(Core *self, PyObject *unused) {
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

/* --------------------------------------------------------------------------- for tests only */

static bool is_manual(const Core *self) {
    if (self->engine) PyErr_SetString(PyExc_RuntimeError, "only a manual core is fed by hand");
    return !self->engine;
}

static PyObject *core_inject(Core *self, PyObject *args) {
    unsigned int handle, name;
    Py_buffer data;
    const char *host;
    int port, rtcp;
    double now_s;
    if (!PyArg_ParseTuple(args, "IIy*(si)dp", &handle, &name, &data, &host, &port, &now_s, &rtcp))
        return NULL;
    PACKET_BUFFER(packet);
    size_t size = (size_t)data.len < sizeof packet ? (size_t)data.len : sizeof packet;
    memcpy(packet, data.buf, size);
    PyBuffer_Release(&data);
    struct endpoint from;
    if (!is_manual(self) || !endpoint_parse(&from, host, port)) return NULL;
    struct session *s;
    struct leg *leg = find_leg(self->core, handle, name, &s);
    if (!leg) return no_session();
    ns_t now = self->now = (ns_t)(now_s * 1e9);
    if (rtcp) {
        relay_receive_rtcp(self->core, s, leg, packet, size, &from, now, clock_ns(CLOCK_REALTIME));
    } else {
        relay_receive(self->core, s, leg, packet, size, &from, now);
    }
    Py_RETURN_NONE;
}

static PyObject *core_tick(Core *self, PyObject *args) {
    double now_s;
    if (!PyArg_ParseTuple(args, "d", &now_s) || !is_manual(self)) return NULL;
    self->now = (ns_t)(now_s * 1e9);
    relay_tick(self->core, self->now, clock_ns(CLOCK_REALTIME));
    Py_RETURN_NONE;
}

static PyObject *core_sent(Core *self, PyObject *unused) {
    (void)unused;
    if (!is_manual(self)) return NULL;
    PyObject *list = PyList_New(self->sent_count);
    for (int i = 0; list && i < self->sent_count; i++) {
        struct captured *c = &self->sent[i];
        PyObject *row = Py_BuildValue("(IiNNy#)", c->handle, (int)c->leg, PyBool_FromLong(c->rtcp),
                                      endpoint_object(&c->to), (const char *)c->data,
                                      (Py_ssize_t)c->size);
        if (row) PyList_SET_ITEM(list, i, row);
        else Py_CLEAR(list);
    }
    for (int i = 0; i < self->sent_count; i++) free(self->sent[i].data);
    self->sent_count = 0;
    return list;
}

static PyObject *core_tapped(Core *self, PyObject *unused) {
    (void)unused;
    if (!is_manual(self)) return NULL;
    PyObject *list = PyList_New(self->tapped_count);
    for (int i = 0; i < self->tapped_count; i++) {
        PyObject *row = PyBytes_FromStringAndSize((const char *)self->tapped[i],
                                                  (Py_ssize_t)self->tapped_size[i]);
        if (list && row) PyList_SET_ITEM(list, i, row);
        else Py_CLEAR(list);
        free(self->tapped[i]);
    }
    self->tapped_count = 0;
    return list;
}

static PyObject *core_refuse(Core *self, PyObject *args) {
    if (!PyArg_ParseTuple(args, "i", &self->refuse) || !is_manual(self)) return NULL;
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
