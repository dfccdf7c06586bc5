/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "digits.h"

#include <string.h>

static const char DIGITS[] = "0123456789*#ABCD";
enum { LONGEST = 0xFFFF };

char event_digit(uint8_t code) { return code < 16 ? DIGITS[code] : 0; }

int event_code(char digit) {
    const char *at = digit ? strchr(DIGITS, digit) : NULL;
    return at ? (int)(at - DIGITS) : -1;
}

static char finish(struct event_receiver *e) {
    if (!e->running) return 0;
    e->running = false;
    return event_digit(e->code);
}

static void begin(struct event_receiver *e, uint8_t code, uint32_t ssrc, uint32_t timestamp) {
    e->begun = e->running = true;
    e->code = code;
    e->ssrc = ssrc;
    e->timestamp = timestamp;
    e->duration = 0;
}

struct heard event_hear(struct event_receiver *e, uint32_t ssrc, uint32_t timestamp,
                        const uint8_t *payload, ns_t now) {
    struct heard heard = {0};
    uint8_t code = payload[0];
    uint16_t duration = get16(payload + 2);
    int32_t ahead = (int32_t)(timestamp - e->timestamp);
    if (!e->begun || ssrc != e->ssrc) {
        heard.before = finish(e);
        begin(e, code, ssrc, timestamp);
        heard.began = true;
    } else if (ahead < 0) {
        heard.stale = true;
        return heard;
    } else if (ahead > 0) {
        /* An event longer than the duration field (8 s) goes on under a new timestamp (RFC 4733
         * section 2.5.1.3). */
        if (e->running && code == e->code && e->duration == LONGEST && ahead == LONGEST) {
            e->timestamp = timestamp;
            e->duration = 0;
        } else {
            heard.before = finish(e);
            begin(e, code, ssrc, timestamp);
            heard.began = true;
        }
    } else if (!e->running || code != e->code) {
        heard.stale = true;
        return heard;
    }
    if (duration > e->duration) e->duration = duration;
    e->last_at = now;
    if (payload[1] & 0x80) heard.ended = finish(e);
    return heard;
}

char event_expire(struct event_receiver *e, ns_t now) {
    return e->running && now - e->last_at > END_LOST ? finish(e) : 0;
}

/* ------------------------------------------------------------------------------- holding */

/* Index of the code that the digits are, -1 when they only begin one, -2 when they are nothing. */
static int match(const struct codes *codes, const char *digits) {
    size_t length = strlen(digits);
    int found = -2;
    for (int i = 0; i < codes->count; i++) {
        if (strcmp(codes->code[i], digits) == 0) return i;
        if (strncmp(codes->code[i], digits, length) == 0) found = -1;
    }
    return found;
}

bool gate_begins(struct digit_gate *g, const struct codes *codes, char digit, bool pending) {
    char alone[2] = {digit, 0};
    g->holding = digit && (g->count > 0 || pending || match(codes, alone) != -2);
    return g->holding;
}

int gate_ends(struct digit_gate *g, const struct codes *codes, char digit, ns_t now,
              char released[MAX_CODE_DIGITS + 2]) {
    size_t out = 0;
    g->holding = false;
    g->held[g->count++] = digit; /* count < MAX_CODE_DIGITS: longer ones matched or were released */
    g->held[g->count] = 0;
    g->deadline = now + HOLD;
    while (g->count) {
        int found = match(codes, g->held);
        if (found >= 0) {
            g->count = 0;
            g->held[0] = 0;
            released[out] = 0;
            return found;
        }
        if (found == -1 && g->count < MAX_CODE_DIGITS) break;
        /* No code begins so: the first digit goes, the others may still begin one. */
        released[out++] = g->held[0];
        memmove(g->held, g->held + 1, (size_t)g->count);
        g->count--;
    }
    released[out] = 0;
    return -1;
}

bool gate_expires(struct digit_gate *g, ns_t now, char released[MAX_CODE_DIGITS + 2]) {
    if (!g->count || g->holding || now < g->deadline) return false;
    memcpy(released, g->held, (size_t)g->count + 1);
    g->count = 0;
    g->held[0] = 0;
    return true;
}

/* ------------------------------------------------------------------------------- sending */

enum { UPDATES = 5, ENDS = 3, VOLUME = 10 };
#define PACE (20 * MS)
#define BETWEEN (60 * MS)

bool sender_push(struct digit_sender *s, char digit) {
    if (event_code(digit) < 0 || s->count == MAX_QUEUED_DIGITS) {
        s->dropped++;
        return false;
    }
    s->queue[s->count++] = digit;
    return true;
}

void sender_clear(struct digit_sender *s) {
    s->count = s->step = 0;
    s->due = 0;
}

size_t sender_packet(struct digit_sender *s, struct out_stream *out, uint8_t payload_type,
                     uint8_t packet[RTP_HEADER + EVENT_BYTES], bool beside, ns_t now) {
    if (!s->count || now < s->due) return 0;
    uint32_t frame = out->clock / 50;
    bool end = s->step >= UPDATES - 1;
    uint32_t duration = frame * (uint32_t)(end ? UPDATES : s->step + 1);
    stream_emit_event(out, packet, payload_type, s->step == 0, beside, now);
    packet[12] = (uint8_t)event_code(s->queue[0]);
    packet[13] = (uint8_t)((end ? 0x80 : 0) | VOLUME);
    put16(packet + 14, (uint16_t)duration);
    /* Paced from the first packet on: counted from now, each one would slip by a tick. The three
     * ends leave together: they repeat one moment (RFC 4733 section 2.5.1.4). */
    if (!s->step || now - s->due > PACE) s->due = now;
    s->due += end ? 0 : PACE;
    if (++s->step == UPDATES - 1 + ENDS) {
        stream_event_over(out, frame * UPDATES);
        memmove(s->queue, s->queue + 1, (size_t)--s->count);
        s->step = 0;
        s->due = now + BETWEEN;
    }
    return RTP_HEADER + EVENT_BYTES;
}
