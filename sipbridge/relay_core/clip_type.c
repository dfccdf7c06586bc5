/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "module_parts.h"

#include <stdlib.h>

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

PyTypeObject ClipType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "sipbridge.relay_core.Clip",
    .tp_basicsize = sizeof(Clip),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "An encoded prompt.",
    .tp_new = clip_new,
    .tp_dealloc = (destructor)clip_dealloc,
};
