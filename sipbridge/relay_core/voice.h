/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The hint to rest the voice: how long somebody spoke on the agent's leg, from the level that the
 * echo's bit (echo.h) is made of anyway. One bit for 200 ms, speaking or not; all that leaves the
 * worker is how many of them were set. No sample, level or word of that voice is kept.
 */
#ifndef CALLSHIELD_VOICE_H
#define CALLSHIELD_VOICE_H

#include <stdint.h>

/* Mean magnitude of a packet from which on somebody speaks: about -48 dBFS of speech. */
enum { VOICE_SPEAKING = 100 };

struct voice {
    int64_t bucket; /* of 200 ms, by the monotonic clock */
    int loudest;    /* of its packets: mean magnitude */
    int line;       /* 64 times the level that this line has while nobody speaks */
    int spoken;     /* buckets with speech that nobody took yet */
};

/* A packet of the agent's leg had this mean magnitude. */
void voice_heard(struct voice *, int level, int64_t now_ns);
/* Milliseconds of speech since the last take; the bucket that runs is not among them. */
uint32_t voice_take_ms(struct voice *);

#endif
