/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * RTP (RFC 3550): making a received packet plain, counting what a source sends, and the one
 * stream that a leg hears, made of packets of many sources.
 *
 * Pure functions on memory; no sockets, no clock, no allocation. Times are monotonic nanoseconds.
 */
#ifndef CALLSHIELD_RTP_H
#define CALLSHIELD_RTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RTP_HEADER = 12,
    RTP_PLAIN = 0x80,  /* version 2, no padding, extension or CSRC: the only first byte we send */
    RTP_MARKER = 0x80,
    RTP_LONGEST = 1500, /* longer datagrams are not telephone audio */
};

typedef int64_t ns_t;
#define SECOND ((ns_t)1000000000)
#define MS ((ns_t)1000000)

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }
static inline void put32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24); p[1] = (uint8_t)(v >> 16); p[2] = (uint8_t)(v >> 8); p[3] = (uint8_t)v;
}

/* Remove CSRC list, extension and padding in place (RFC 3550 sections 5.1, 5.3.1).
 * Returns the new length (12 when the payload is empty), 0 when it is not RTP or its lengths lie. */
size_t rtp_make_plain(uint8_t *packet, size_t size);

/* Statistics of what a leg receives (RFC 3550 appendix A.1, A.3, A.8). */
struct receiver {
    bool begun;
    uint32_t ssrc;
    uint16_t newest;      /* highest sequence number */
    uint32_t cycles;      /* times 65536 */
    uint32_t base;
    uint64_t window;      /* bit n: newest - n was seen */
    uint64_t received;    /* of this source */
    uint64_t past_expected, past_received; /* of earlier sources */
    uint64_t duplicates, late;
    uint64_t expected_prior, received_prior; /* of this source, at the last report */
    int64_t transit;      /* of the newest packet, in clock units */
    uint32_t jitter;      /* in clock units, times 16 */
};

/* Count a packet; false when it is a duplicate. clock: of the codec, Hz; timed: its timestamp is
 * the time of its first sample (a telephone-event's is not). */
bool receiver_count(struct receiver *, uint16_t sequence, uint32_t timestamp, uint32_t ssrc,
                    uint32_t clock, bool timed, ns_t now);
/* Of all sources; lost = expected - received. */
/* Another far end speaks from now on, perhaps with the SSRC and the numbers of the one before. */
void receiver_restart(struct receiver *);
uint64_t receiver_expected(const struct receiver *);
uint64_t receiver_received(const struct receiver *);
/* Of the newest source alone. */
uint32_t receiver_expected_now(const struct receiver *);
double receiver_jitter_ms(const struct receiver *, uint32_t clock);

/* The one stream that a leg hears: one SSRC, sequence numbers and timestamps without a seam. It
 * keeps the gaps of the source that it follows (out = in + offset), so that the phone's own loss
 * concealment works. */
struct out_stream {
    uint32_t ssrc;
    uint32_t clock;       /* Hz */
    uint64_t sent, octets;
    uint16_t sequence;    /* the newest packet sent, while no source is followed */
    uint32_t timestamp;
    uint32_t samples;     /* of the newest packet, clock units */
    ns_t at;              /* when it was sent */
    ns_t lead;            /* how far timestamps are ahead of the clock by what was inserted */
    bool following;
    uint32_t in_ssrc;
    uint16_t in_sequence;
    uint32_t in_timestamp;
    uint16_t sequence_offset;
    uint32_t timestamp_offset;
    uint16_t anchor_sequence;
    uint64_t anchor_sent;
    uint32_t event_timestamp; /* of the newest telephone-event */
};

void stream_init(struct out_stream *, uint32_t ssrc, uint16_t sequence, uint32_t timestamp);

/* Write our header over a plain packet of another source.
 *   kind: marker bit and payload type as they shall leave;
 *   samples: that the packet holds, 0 when its codec does not tell;
 *   is_event: a telephone-event, whose timestamp is that of its beginning (RFC 4733 section 2.1).
 * False when the packet comes too late to fit in: its place was taken. */
bool stream_forward(struct out_stream *, uint8_t *packet, uint8_t kind, uint32_t samples,
                    bool is_event, ns_t now);

/* A packet of the source that is followed goes no further (a held digit): its number is given to
 * the next one, so that the far end does not take it for a loss. */
void stream_skip(struct out_stream *, uint16_t sequence, uint32_t ssrc);

/* Follow no source any more: the next packet, whoever sends it, is the next in line. */
void stream_release(struct out_stream *);

/* Write the header of a packet of our own. begins: the first one after a pause or a relayed one:
 * marker set (RFC 3551 section 4.1), and the timestamp catches up with the clock; otherwise it
 * goes on by exactly the previous packet's samples. */
void stream_emit(struct out_stream *, uint8_t *packet, uint8_t payload_type, uint32_t samples,
                 bool begins, ns_t now);

/* The same for a packet of a digit: the timestamp stays at the event's beginning. beside: sound of
 * our own goes on meanwhile, under timestamps that the event leaves alone. */
void stream_emit_event(struct out_stream *, uint8_t *packet, uint8_t payload_type, bool begins,
                       bool beside, ns_t now);
/* The event is over: what follows, unless it was sent already, begins after it. */
void stream_event_over(struct out_stream *, uint32_t samples);

/* Timestamp and time of the newest packet, followed or not. */
uint32_t stream_newest_timestamp(const struct out_stream *);

#endif
