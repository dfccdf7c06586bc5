/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "echo.h"

#include "g711.h"
#include "voice.h"

enum {
    BUCKET_NS = 200 * 1000 * 1000,
    OWN_NS = 200 * 1000 * 1000,
    BELOW = 6,      /* times the caller's level: 15.6 dB, for an echo of -20 dB with noise on it */
    LONGEST = 480,  /* samples looked at: 60 ms */
};

static int level_of(int law, const uint8_t *codes, size_t count) {
    int16_t samples[LONGEST];
    if (count > LONGEST) count = LONGEST;
    if (!count) return 0;
    g711_decode(law, codes, samples, count);
    int sum = 0;
    for (size_t i = 0; i < count; i++) sum += samples[i] < 0 ? -samples[i] : samples[i];
    return sum / (int)count;
}

/* Forget what is too old to echo. */
static void age(struct echo *echo, int64_t bucket) {
    if (bucket == echo->bucket) return;
    echo->level[1] = bucket == echo->bucket + 1 ? echo->level[0] : 0;
    echo->level[0] = 0;
    echo->bucket = bucket;
}

int echo_spoken(struct echo *echo, int law, const uint8_t *codes, size_t count, int64_t now_ns) {
    age(echo, now_ns / BUCKET_NS);
    int level = level_of(law, codes, count);
    if (level > echo->level[0]) echo->level[0] = level;
    return level;
}

bool echo_likely(struct echo *echo, int law, const uint8_t *codes, size_t count, int64_t now_ns) {
    age(echo, now_ns / BUCKET_NS);
    int loudest = echo->level[0] > echo->level[1] ? echo->level[0] : echo->level[1];
    if (loudest < VOICE_SPEAKING) return false;
    if (level_of(law, codes, count) * BELOW >= loudest) echo->own_until = now_ns + OWN_NS;
    return now_ns >= echo->own_until;
}
