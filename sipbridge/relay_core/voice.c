/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "voice.h"

enum {
    BUCKET_MS = 200,
    FINE = 64,
    ABOVE = 4, /* times the line's own noise: 12 dB */
    LEAST = VOICE_SPEAKING * FINE / ABOVE, /* of what is known of it: less makes no difference */
    RISE = 32, /* the noise is learnt by a 32nd in 200 ms (6 dB in 4.5 s), and unlearnt at once */
};

/* One bit for the bucket that is over. Speech has gaps in which the line falls back to its noise;
 * a fan or an open office next to the microphone has none, and is soon known for what it is. */
static void close_bucket(struct voice *v) {
    int level = v->loudest * FINE;
    if (v->line < LEAST) v->line = LEAST;
    v->spoken += level >= v->line * ABOVE;
    if (level < v->line) v->line = level;
    else v->line += v->line / RISE;
}

void voice_heard(struct voice *v, int level, int64_t now_ns) {
    int64_t bucket = now_ns / (BUCKET_MS * INT64_C(1000000));
    if (bucket != v->bucket) {
        close_bucket(v);
        v->bucket = bucket;
        v->loudest = 0;
    }
    if (level > v->loudest) v->loudest = level;
}

uint32_t voice_take_ms(struct voice *v) {
    uint32_t spoken = (uint32_t)v->spoken * BUCKET_MS;
    v->spoken = 0;
    return spoken;
}
