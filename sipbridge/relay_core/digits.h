/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Digits as RTP events (RFC 4733): hearing them, holding back the agent's feature codes, and
 * sending them.
 */
#ifndef CALLSHIELD_DIGITS_H
#define CALLSHIELD_DIGITS_H

#include "rtp.h"

enum {
    EVENT_BYTES = 4,
    MAX_CODES = 16,
    MAX_CODE_DIGITS = 8,
    MAX_QUEUED_DIGITS = 32, /* waiting to be sent; more are dropped and counted */
};

/* No packet of an event for this long means that its end was lost: senders repeat it every packet
 * time (RFC 4733 section 2.5.1.2). */
#define END_LOST (250 * MS)
/* A code that was begun and not gone on with is no code. */
#define HOLD (1500 * MS)

/* ------------------------------------------------------------------------------- hearing */

/* A press is a run of packets that share one timestamp, with a growing duration; the last one
 * carries the end bit and is sent three times. The digit counts at the first end bit; when all
 * ends are lost, the next event's timestamp or a pause tells. */
struct event_receiver {
    bool begun;      /* an event was ever heard */
    bool running;
    uint8_t code;
    uint32_t ssrc, timestamp;
    uint16_t duration;
    ns_t last_at;
};

struct heard {
    bool began;     /* this packet began a new press */
    char before;    /* digit of an earlier press whose end was lost; 0: none */
    char ended;     /* digit that ended with this packet; 0: none */
    bool stale;     /* of a press that is over or before the newest, or of no press at all */
};

/* payload: EVENT_BYTES at least. */
struct heard event_hear(struct event_receiver *, uint32_t ssrc, uint32_t timestamp,
                        const uint8_t *payload, ns_t now);
/* The digit whose end was lost, when nothing came for END_LOST; else 0. */
char event_expire(struct event_receiver *, ns_t now);
char event_digit(uint8_t code); /* 0: not a digit (flash, tones) */
int event_code(char digit);     /* -1: not a digit */

/* ------------------------------------------------------------------------------- holding */

struct codes {
    int count;
    char code[MAX_CODES][MAX_CODE_DIGITS + 1];
};

/* The agent's digits: from a feature code's first one on they are held; a complete code is
 * consumed; a mismatch or a pause lets them go. Other digits are not delayed. */
struct digit_gate {
    char held[MAX_CODE_DIGITS + 1];
    int count;
    bool holding;    /* the running press is held */
    ns_t deadline;   /* of the held digits */
};

/* A press of this digit begins: shall its packets be held? pending: digits let go earlier still
 * wait to be sent, so that this one must queue up behind them. */
bool gate_begins(struct digit_gate *, const struct codes *, char digit, bool pending);
/* A held press ended. Returns the index of the completed code, or -1; digits that go on their way
 * are written to released (terminated by 0). */
int gate_ends(struct digit_gate *, const struct codes *, char digit, ns_t now,
              char released[MAX_CODE_DIGITS + 2]);
/* The deadline passed: what was held goes on its way. */
bool gate_expires(struct digit_gate *, ns_t now, char released[MAX_CODE_DIGITS + 2]);

/* ------------------------------------------------------------------------------- sending */

/* Fresh events: 100 ms each, 20 ms apart, the end three times, 60 ms of silence between. */
struct digit_sender {
    char queue[MAX_QUEUED_DIGITS];
    int count;
    int step;         /* packets of the current digit sent; 0: none begun */
    ns_t due;
    uint64_t dropped;
};

bool sender_push(struct digit_sender *, char digit);
static inline bool sender_busy(const struct digit_sender *s) { return s->count > 0; }
/* Send none of what waits, nor the rest of what was begun. */
void sender_clear(struct digit_sender *);
/* The packet that is due (16 bytes), 0 when none is. beside: see stream_emit_event(). */
size_t sender_packet(struct digit_sender *, struct out_stream *, uint8_t payload_type,
                     uint8_t packet[RTP_HEADER + EVENT_BYTES], bool beside, ns_t now);

#endif
