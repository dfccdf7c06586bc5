/* The type `Ear` of sipbridge.relay_core: ear.h for tests and measurements. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "ear.h"

int ear_add_type(PyObject *module);

typedef struct {
    PyObject_HEAD
    struct ear ear;
} EarObject;

/* Fill `profile` from keyword arguments; soften and levelling are taken out on the way. */
static int read_keywords(PyObject *keywords, struct ear_profile *profile, int *soften,
                         int *levelling)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (keywords && PyDict_Next(keywords, &at, &key, &value)) {
        const char *name = PyUnicode_AsUTF8(key);
        if (!name)
            return -1;
        if (strcmp(name, "soften") == 0 || strcmp(name, "levelling") == 0) {
            const int on = PyObject_IsTrue(value);
            if (on < 0)
                return -1;
            *(name[0] == 's' ? soften : levelling) = on;
            continue;
        }
        size_t i = 0;
        while (i < ear_profile_field_count && strcmp(ear_profile_fields[i].name, name) != 0)
            i++;
        if (i == ear_profile_field_count) {
            PyErr_Format(PyExc_TypeError, "an ear profile has no field %s; see Ear.profile_fields",
                         name);
            return -1;
        }
        const struct ear_profile_field *field = &ear_profile_fields[i];
        const double number = PyFloat_AsDouble(value);
        if (number == -1.0 && PyErr_Occurred())
            return -1;
        if (!(number >= field->low && number <= field->high)) {
            PyErr_Format(PyExc_ValueError, "%s is outside the range in Ear.profile_fields", name);
            return -1;
        }
        const float single = (float)number;
        memcpy((char *)profile + field->offset, &single, sizeof single);
    }
    return 0;
}

static PyObject *ear_new(PyTypeObject *type, PyObject *positional, PyObject *keywords)
{
    struct ear_profile profile;
    int soften = 0, levelling = 0;
    if (PyTuple_GET_SIZE(positional)) {
        PyErr_SetString(PyExc_TypeError, "Ear takes keyword arguments only");
        return NULL;
    }
    ear_profile_default(&profile);
    if (read_keywords(keywords, &profile, &soften, &levelling) < 0)
        return NULL;
    EarObject *self = (EarObject *)PyType_GenericAlloc(type, 0);
    if (self) {
        ear_init(&self->ear, &profile);
        ear_set(&self->ear, soften, levelling);
    }
    return (PyObject *)self;
}

static void ear_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *method_process(PyObject *self, PyObject *argument)
{
    Py_buffer in;
    if (PyObject_GetBuffer(argument, &in, PyBUF_SIMPLE) < 0)
        return NULL;
    if (in.len % 2 || in.len / 2 > INT32_MAX) {
        PyBuffer_Release(&in);
        PyErr_SetString(PyExc_ValueError, "samples come as whole little-endian int16 values");
        return NULL;
    }
    PyObject *out = PyBytes_FromStringAndSize(in.buf, in.len);
    PyBuffer_Release(&in);
    if (out) /* the only reference to fresh bytes: ours to write */
        ear_process(&((EarObject *)self)->ear, (int16_t *)(void *)PyBytes_AS_STRING(out),
                    (int)(PyBytes_GET_SIZE(out) / 2));
    return out;
}

static PyObject *method_set(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"soften", "levelling", NULL};
    int soften, levelling;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "pp", names, &soften, &levelling))
        return NULL;
    ear_set(&((EarObject *)self)->ear, soften, levelling);
    Py_RETURN_NONE;
}

static PyObject *method_reset(PyObject *self, PyObject *unused)
{
    (void)unused;
    ear_reset(&((EarObject *)self)->ear);
    Py_RETURN_NONE;
}

static PyObject *method_take_dose(PyObject *self, PyObject *unused)
{
    (void)unused;
    double sum;
    uint64_t samples;
    ear_take_dose(&((EarObject *)self)->ear, &sum, &samples);
    return Py_BuildValue("dK", sum, (unsigned long long)samples);
}

static PyObject *method_counters(PyObject *self, PyObject *unused)
{
    (void)unused;
    const struct ear_counters *c = &((EarObject *)self)->ear.counters;
    return Py_BuildValue("{sKsKsKsKsKsK}", "packets", (unsigned long long)c->packets,
                         "packets_changed", (unsigned long long)c->packets_changed,
                         "packets_limited", (unsigned long long)c->packets_limited,
                         "packets_softened", (unsigned long long)c->packets_softened,
                         "shock_tones", (unsigned long long)c->shock_tones,
                         "shock_bursts", (unsigned long long)c->shock_bursts);
}

static PyMethodDef methods[] = {
    {"process", method_process, METH_O,
     "process(samples) -> bytes: int16 at 8 kHz, as the agent hears them."},
    {"set", (PyCFunction)(void (*)(void))method_set, METH_VARARGS | METH_KEYWORDS,
     "set(soften, levelling): switch the two; both fade."},
    {"reset", method_reset, METH_NOARGS, "Forget the signal; switches, dose and counters stay."},
    {"take_dose", method_take_dose, METH_NOARGS,
     "take_dose() -> (A-weighted sum of squares, samples) since the last take; full scale is 1."},
    {"counters", method_counters, METH_NOARGS, "counters() -> dict of what was done so far."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, ear_new},
    {Py_tp_dealloc, ear_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_doc, "Ear(*, soften=False, levelling=False, **profile): what protects one agent's ear."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "sipbridge.relay_core.Ear",
    .basicsize = sizeof(EarObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

/* `Ear.profile_fields`: name -> (default, lowest, highest). */
static PyObject *profile_fields(void)
{
    PyObject *fields = PyDict_New();
    for (size_t i = 0; fields && i < ear_profile_field_count; i++) {
        const struct ear_profile_field *field = &ear_profile_fields[i];
        PyObject *value = Py_BuildValue("ddd", (double)field->standard, (double)field->low,
                                        (double)field->high);
        if (!value || PyDict_SetItemString(fields, field->name, value) < 0)
            Py_CLEAR(fields);
        Py_XDECREF(value);
    }
    return fields;
}

/* Add the type to a module; 0, or -1 with an exception set. */
int ear_add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec), *fields = profile_fields();
    int result = -1;
    if (type && fields && PyObject_SetAttrString(type, "profile_fields", fields) == 0)
        result = PyModule_AddObjectRef(module, "Ear", type);
    Py_XDECREF(fields);
    Py_XDECREF(type);
    return result;
}
