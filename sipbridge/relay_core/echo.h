/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One bit from the phone's side: somebody speaks there, so much louder than what comes from the
 * caller's line that this may be the echo of it (of a hybrid or of the caller's loudspeaker,
 * ITU-T G.168 section 3). Levels are means of magnitudes of G.711; nothing else of that voice is
 * kept. Of the agent's leg a second bit is made of the same level (voice.h).
 */
#ifndef CALLSHIELD_ECHO_H
#define CALLSHIELD_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The loudest level of the near past: two buckets of 200 ms, so 200-400 ms. */
struct echo {
    int64_t bucket;
    int level[2];
    int64_t own_until; /* the caller's own voice was heard: its soft sounds are no echo */
};

/* A packet of the agent's or the helper's voice; its mean magnitude. */
int echo_spoken(struct echo *, int law, const uint8_t *codes, size_t count, int64_t now_ns);
/* Whether a packet of the caller's may be echo of what was spoken. */
bool echo_likely(struct echo *, int law, const uint8_t *codes, size_t count, int64_t now_ns);

#endif
