/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the parts of the relay know of each other; engine.c and module.c need relay.h only.
 */
#ifndef CALLSHIELD_RELAY_PARTS_H
#define CALLSHIELD_RELAY_PARTS_H

#include "relay.h"

enum {
    FRAME = 160, /* samples of 20 ms */
    BURST = 3,   /* packets that one stream may send at a tick */
};
/* A lag beyond this is a machine that was stopped: time goes on from now. */
#define LONGEST_LAG (1 * SECOND)

static inline uint32_t clock_of(int codec) { return codec == CODEC_OPUS ? 48000 : 8000; }

static inline bool can_hear(const struct leg *leg) {
    return leg->open && leg->codec != CODEC_NONE && endpoint_known(&leg->latch.destination);
}

/* relay.c: from the RTP header on, in a buffer of PACKET_ROOM. */
void leg_send(struct core *, struct session *, struct leg *to, uint8_t *packet, size_t size);

/* play.c */
void play_finish(struct core *, struct session *, struct leg *, enum play_end, ns_t realtime);
void play_tick(struct core *, struct session *, struct leg *, ns_t now, ns_t realtime);
/* Add a mixed prompt's next samples to what a leg hears. */
void play_add_tone(struct play *, int16_t *samples, size_t count, ns_t now, ns_t realtime);

/* conference.c: what a leg said; 20 ms for all of them. */
void conference_hear(struct leg *, const uint8_t *packet, size_t size);
void conference_tick(struct core *, struct session *, ns_t now, ns_t realtime);

/* session.c */
void session_untick(struct core *, struct session *);

#endif
