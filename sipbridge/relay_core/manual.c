/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A core without I/O, for tests: packets and time go in by hand, what it would send is kept.
 */
#include "module_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

int manual_output(struct core *core, struct session *s, struct leg *leg, bool rtcp,
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

int manual_tap(struct core *core, const uint8_t *datagram, size_t size) {
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

static PyObject *endpoint_object(const struct endpoint *e) {
    char host[INET6_ADDRSTRLEN] = "";
    if (e->size) {
        const void *at = e->at.any.sa_family == AF_INET ? (const void *)&e->at.four.sin_addr
                                                        : (const void *)&e->at.six.sin6_addr;
        inet_ntop(e->at.any.sa_family, at, host, sizeof host);
    }
    return Py_BuildValue("(si)", host, e->size ? (int)endpoint_port(e) : 0);
}

static bool is_manual(const Core *self) {
    if (self->engine) PyErr_SetString(PyExc_RuntimeError, "only a manual core is fed by hand");
    return !self->engine;
}

PyObject *core_inject(Core *self, PyObject *args) {
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

PyObject *core_tick(Core *self, PyObject *args) {
    double now_s;
    if (!PyArg_ParseTuple(args, "d", &now_s) || !is_manual(self)) return NULL;
    self->now = (ns_t)(now_s * 1e9);
    relay_tick(self->core, self->now, clock_ns(CLOCK_REALTIME));
    Py_RETURN_NONE;
}

PyObject *core_sent(Core *self, PyObject *unused) {
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

PyObject *core_tapped(Core *self, PyObject *unused) {
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

PyObject *core_refuse(Core *self, PyObject *args) {
    if (!PyArg_ParseTuple(args, "i", &self->refuse) || !is_manual(self)) return NULL;
    Py_RETURN_NONE;
}
