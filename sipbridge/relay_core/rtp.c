/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "rtp.h"

#include <string.h>

/* RFC 3550 appendix A.1: further ahead is a restart of the source; at most this far behind is
 * late, not new. */
enum { MAX_DROPOUT = 3000, MAX_MISORDER = 100 };

size_t rtp_make_plain(uint8_t *packet, size_t size) {
    if (size < RTP_HEADER || size > RTP_LONGEST || packet[0] >> 6 != 2) return 0;
    size_t start = RTP_HEADER + 4 * (size_t)(packet[0] & 0x0F);
    if (packet[0] & 0x10) {
        if (start + 4 > size) return 0;
        start += 4 + 4 * (size_t)get16(packet + start + 2);
    }
    size_t end = size;
    if (packet[0] & 0x20) {
        uint8_t padding = packet[size - 1];
        if (padding == 0 || padding > size) return 0;
        end -= padding;
    }
    if (start > end) return 0;
    packet[0] = RTP_PLAIN;
    if (start != RTP_HEADER) memmove(packet + RTP_HEADER, packet + start, end - start);
    return RTP_HEADER + end - start;
}

/* ------------------------------------------------------------------------------ receiver */

void receiver_restart(struct receiver *r) {
    r->past_expected = receiver_expected(r);
    r->past_received = receiver_received(r);
    r->begun = false;
}

static void receiver_begin(struct receiver *r, uint16_t sequence, uint32_t ssrc) {
    r->past_expected = receiver_expected(r);
    r->past_received = receiver_received(r);
    r->begun = true;
    r->ssrc = ssrc;
    r->newest = sequence;
    r->base = sequence;
    r->cycles = 0;
    r->window = 1;
    r->received = 1;
    r->expected_prior = r->received_prior = 0;
    r->transit = INT64_MIN;
}

static int64_t clock_units(ns_t time, uint32_t clock) {
    return time / SECOND * clock + time % SECOND * clock / SECOND;
}

bool receiver_count(struct receiver *r, uint16_t sequence, uint32_t timestamp, uint32_t ssrc,
                    uint32_t clock, bool timed, ns_t now) {
    int ahead = (int16_t)(sequence - r->newest);
    if (!r->begun || ssrc != r->ssrc || ahead >= MAX_DROPOUT || ahead < -MAX_MISORDER) {
        receiver_begin(r, sequence, ssrc);
    } else if (ahead > 0) {
        if (sequence < r->newest) r->cycles += 0x10000;
        r->newest = sequence;
        r->window = ahead < 64 ? r->window << ahead | 1 : 1;
        r->received++;
    } else {
        /* Late or a duplicate; so late that the window has forgotten it counts as late. */
        if (-ahead < 64) {
            uint64_t bit = (uint64_t)1 << -ahead;
            if (r->window & bit) {
                r->duplicates++;
                return false;
            }
            r->window |= bit;
        }
        r->late++;
        r->received++;
        /* Before the first one that came: base may go below 0, it counts modulo 2^32. */
        uint32_t extended = r->cycles + r->newest - (uint32_t)-ahead;
        if ((int32_t)(extended - r->base) < 0) r->base = extended;
    }
    if (!timed) return true;
    /* Modulo 2^32, as a difference of timestamps is. */
    int64_t transit = (uint32_t)clock_units(now, clock) - timestamp;
    if (r->transit != INT64_MIN) {
        int64_t d = (int32_t)(uint32_t)(transit - r->transit);
        if (d < 0) d = -d;
        /* A jump of the timestamps is no jitter. */
        if (d < clock) r->jitter += (uint32_t)d - ((r->jitter + 8) >> 4);
    }
    r->transit = transit;
    return true;
}

uint64_t receiver_expected(const struct receiver *r) {
    if (!r->begun) return r->past_expected;
    return r->past_expected + receiver_expected_now(r);
}

uint32_t receiver_expected_now(const struct receiver *r) {
    return r->begun ? r->cycles + r->newest - r->base + 1 : 0;
}

uint64_t receiver_received(const struct receiver *r) {
    return r->past_received + (r->begun ? r->received : 0);
}

double receiver_jitter_ms(const struct receiver *r, uint32_t clock) {
    return (double)r->jitter / 16.0 * 1000.0 / clock;
}

/* -------------------------------------------------------------------------------- stream */

static uint32_t frame_of(const struct out_stream *s) { return s->clock / 50; }

void stream_init(struct out_stream *s, uint32_t ssrc, uint16_t sequence, uint32_t timestamp) {
    memset(s, 0, sizeof *s);
    s->ssrc = ssrc;
    s->clock = 8000;
    s->sequence = (uint16_t)(sequence - 1);
    s->samples = frame_of(s);
    s->timestamp = timestamp - s->samples;
}

/* Samples from the newest packet's timestamp to that of one sent now: at least one frame and the
 * newest packet's own length; whole frames of the time gone by otherwise. What that is too much by
 * is taken back at the next occasion: a phone would hold everything back for longer and longer. */
static uint32_t advance_of(struct out_stream *s, ns_t now) {
    uint32_t frame = frame_of(s);
    ns_t gone = s->sent ? now - s->at : 20 * MS;
    uint64_t frames = gone > s->lead ? (uint64_t)(gone - s->lead + 10 * MS) / (20 * MS) : 0;
    uint64_t whole = frames * frame;
    uint32_t advance = whole > UINT32_MAX ? frame : (uint32_t)whole;
    if (advance < s->samples) advance = s->samples;
    if (advance < frame) advance = frame;
    ns_t lead = s->lead + (ns_t)((uint64_t)advance * 1000 / s->clock) * MS - gone;
    s->lead = lead < 0 ? 0 : lead > SECOND ? SECOND : lead;
    return advance;
}

void stream_release(struct out_stream *s) {
    if (!s->following) return;
    s->sequence = (uint16_t)(s->in_sequence + s->sequence_offset);
    s->timestamp = s->in_timestamp + s->timestamp_offset;
    s->following = false;
}

/* Anchor a source so that its packet is the next of ours. */
static void follow(struct out_stream *s, uint16_t sequence, uint32_t timestamp, uint32_t ssrc,
                   ns_t now) {
    stream_release(s);
    s->sequence_offset = (uint16_t)(s->sequence + 1 - sequence);
    s->timestamp_offset = s->timestamp + advance_of(s, now) - timestamp;
    s->following = true;
    s->in_ssrc = ssrc;
    s->in_sequence = s->anchor_sequence = sequence;
    s->in_timestamp = timestamp;
    s->anchor_sent = s->sent;
    s->at = now;
}

/* Of an unusual packet: 0 fits in, 1 begins a new source, -1 comes too late. */
static int judge(struct out_stream *s, uint16_t sequence, uint32_t timestamp, uint32_t ssrc,
                 bool is_event, ns_t now) {
    if (!s->following || ssrc != s->in_ssrc) return 1;
    int ahead = (int16_t)(sequence - s->in_sequence);
    int64_t step = (int32_t)(timestamp - s->in_timestamp);
    int64_t plain = (int64_t)s->clock * 6 / 10;
    int64_t tolerance = s->clock;
    if (-MAX_MISORDER <= ahead && ahead <= 0) {
        /* Late or a duplicate. Before the anchor its number belongs to what was sent before, by
         * somebody else. */
        int since_anchor = (uint16_t)(s->in_sequence - s->anchor_sequence);
        if (s->sent - s->anchor_sent <= MAX_MISORDER && -ahead > since_anchor) return -1;
        int64_t far = plain + (int64_t)MAX_MISORDER * frame_of(s);
        return -far <= step && step <= far ? 0 : -1;
    }
    if (ahead <= 0 || ahead >= MAX_DROPOUT) return 1;
    if (is_event && -9 * tolerance < step && step < 0) {
        s->in_sequence = sequence;
        return 0;
    }
    int64_t elapsed = clock_units(now - s->at, s->clock);
    int64_t by_sequence = step - (int64_t)ahead * s->samples;
    int64_t by_clock = step - elapsed;
    if (step > 0 && ((-tolerance <= by_sequence && by_sequence <= tolerance) ||
                     (-tolerance <= by_clock && by_clock <= tolerance))) {
        /* Many packets lost, or silence that was not sent. */
        s->in_sequence = sequence;
        s->in_timestamp = timestamp;
        s->at = now;
        return 0;
    }
    return 1;
}

bool stream_forward(struct out_stream *s, uint8_t *packet, uint8_t kind, uint32_t samples,
                    bool is_event, ns_t now) {
    uint16_t sequence = get16(packet + 2);
    uint32_t timestamp = get32(packet + 4), ssrc = get32(packet + 8);
    uint16_t ahead = (uint16_t)(sequence - s->in_sequence);
    uint32_t step = timestamp - s->in_timestamp;
    if (s->following && ssrc == s->in_ssrc && 0 < ahead && ahead < MAX_DROPOUT &&
        step <= s->clock * 6 / 10) {
        s->in_sequence = sequence;
        if (step) {
            s->in_timestamp = timestamp;
            s->at = now;
            /* No packet is longer than 120 ms: a longer step is silence that was not sent. */
            s->samples = samples ? samples
                         : ahead == 1 && step <= s->clock * 12 / 100 ? step : s->samples;
        }
    } else {
        int verdict = judge(s, sequence, timestamp, ssrc, is_event, now);
        if (verdict < 0) return false;
        if (verdict) {
            kind |= RTP_MARKER;
            follow(s, sequence, timestamp, ssrc, now);
            s->samples = samples ? samples : frame_of(s);
        }
    }
    s->sent++;
    packet[0] = RTP_PLAIN;
    packet[1] = kind;
    put16(packet + 2, (uint16_t)(sequence + s->sequence_offset));
    put32(packet + 4, timestamp + s->timestamp_offset);
    put32(packet + 8, s->ssrc);
    if (is_event) s->event_timestamp = timestamp + s->timestamp_offset;
    return true;
}

void stream_skip(struct out_stream *s, uint16_t sequence, uint32_t ssrc) {
    uint16_t ahead = (uint16_t)(sequence - s->in_sequence);
    if (!s->following || ssrc != s->in_ssrc || ahead == 0 || ahead >= MAX_DROPOUT) return;
    s->in_sequence = sequence;
    s->sequence_offset--;
    /* What is older and comes late would get a number that was used. */
    s->anchor_sequence = sequence;
    s->anchor_sent = s->sent;
}

static void write_header(struct out_stream *s, uint8_t *packet, uint8_t kind, uint32_t timestamp) {
    packet[0] = RTP_PLAIN;
    packet[1] = kind;
    put16(packet + 2, s->sequence);
    put32(packet + 4, timestamp);
    put32(packet + 8, s->ssrc);
    s->sent++;
}

void stream_emit(struct out_stream *s, uint8_t *packet, uint8_t payload_type, uint32_t samples,
                 bool begins, ns_t now) {
    stream_release(s);
    s->sequence++;
    s->timestamp += begins ? advance_of(s, now) : s->samples;
    s->samples = samples;
    s->at = now;
    write_header(s, packet, (uint8_t)(payload_type | (begins ? RTP_MARKER : 0)), s->timestamp);
}

void stream_emit_event(struct out_stream *s, uint8_t *packet, uint8_t payload_type, bool begins,
                       bool beside, ns_t now) {
    stream_release(s);
    s->sequence++;
    if (begins && !beside) {
        s->timestamp += advance_of(s, now);
        s->samples = frame_of(s);
        s->at = now;
    }
    if (begins) s->event_timestamp = s->timestamp;
    write_header(s, packet, (uint8_t)(payload_type | (begins ? RTP_MARKER : 0)),
                 s->event_timestamp);
}

void stream_event_over(struct out_stream *s, uint32_t samples) {
    if (s->timestamp == s->event_timestamp) s->samples = samples;
}

uint32_t stream_newest_timestamp(const struct out_stream *s) {
    return s->following ? s->in_timestamp + s->timestamp_offset : s->timestamp;
}
