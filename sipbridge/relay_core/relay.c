/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "relay_parts.h"

#include <time.h>

#define TAP_EVERY (20 * MS)
#define SWEEP_EVERY (100 * MS)

static struct leg *other(struct session *s, const struct leg *leg) {
    return &s->leg[leg->name == CALLER ? AGENT : CALLER];
}

/* Whether the other leg's digits may go to this one. */
static bool gate_open(const struct session *s, const struct leg *to) {
    return to->name == AGENT ? s->caller_to_agent : to->name == CALLER && s->agent_to_caller;
}

void leg_send(struct core *core, struct session *s, struct leg *to, uint8_t *packet, size_t size) {
    to->out.octets += size - RTP_HEADER;
    if (to->srtp_out) {
        int length = (int)size;
        if (srtp_protect(to->srtp_out, packet, &length) != srtp_err_status_ok) {
            to->unsent++;
            return;
        }
        size = (size_t)length;
    }
    if (core->output(core, s, to, false, packet, size, &to->latch.destination) != 0) {
        to->unsent++;
        to->play.failed += to->play.active && !to->play.mix;
    }
}

/* ------------------------------------------------------------------------------------- voice */

static ns_t wall_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (ns_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* The G.711 payload on its way to a leg: another law, a tone added, limited for the ear. */
static void treat(struct leg *from, struct leg *to, uint8_t *payload, size_t count, ns_t now) {
    bool mixing = to->play.active && to->play.mix;
    if (!mixing && !to->protect) {
        g711_transcode(from->codec, to->codec, payload, count);
        return;
    }
    int16_t samples[RTP_LONGEST];
    g711_decode(from->codec, payload, samples, count);
    if (mixing) {
        play_add_tone(&to->play, samples, count, now, wall_clock());
    }
    bool changed = mixing;
    if (to->protect) changed |= ear_process(to->ear, samples, (int)count) != 0;
    if (changed) g711_encode(to->codec, samples, payload, count);
    else g711_transcode(from->codec, to->codec, payload, count);
}

static void relay_voice(struct core *core, struct session *s, struct leg *from, struct leg *to,
                        uint8_t *packet, size_t size, bool is_noise, ns_t now) {
    if (s->conference || !gate_open(s, to) || !can_hear(to)) return;
    if ((to->play.active && !to->play.mix) || sender_busy(&to->digits)) {
        /* What gives way is no loss: a held digit behind it, before our first packet at the next
         * tick, must not count it. */
        stream_release(&to->out);
        return;
    }
    bool by_table = is_g711(from->codec) && is_g711(to->codec);
    if (from->codec != to->codec && !by_table) return;
    if (is_noise && to->noise_type < 0) {
        stream_skip(&to->out, get16(packet + 2), get32(packet + 8));
        return;
    }
    size_t count = size - RTP_HEADER;
    uint8_t kind = (uint8_t)((packet[1] & RTP_MARKER) |
                             (is_noise ? to->noise_type : to->voice_type));
    uint32_t samples = is_noise ? to->out.clock / 50 : by_table ? (uint32_t)count : 0;
    if (!stream_forward(&to->out, packet, kind, samples, false, now)) return;
    to->play.alone = false; /* a mixed prompt that went on alone gives way */
    if (!is_noise) {
        if (s->record && !s->paused) {
            record_add(core, s, to->name == AGENT ? 0 : 1, from->codec, get32(packet + 4),
                       packet + RTP_HEADER, count, wall_clock());
        }
        if (by_table) treat(from, to, packet + RTP_HEADER, count, now);
    }
    leg_send(core, s, to, packet, size);
}

/* ------------------------------------------------------------------------------------ digits */

/* What a leg hears is made here: a prompt, a tone that nobody speaks over, a conference. */
static bool sounds_of_ours(const struct session *s, const struct leg *to) {
    return s->conference || (to->play.active && (!to->play.mix || to->play.alone));
}

/* Digits that the gate let go, or that came by INFO, to the other side. */
static void deliver(struct core *core, struct session *s, struct leg *from, const char *digits) {
    struct leg *to = other(s, from);
    for (; *digits && gate_open(s, to) && to->open; digits++) {
        if (to->event_type >= 0 && can_hear(to)) {
            sender_push(&to->digits, *digits);
            session_wants_ticks(core, s);
        } else {
            struct event event = {.kind = EVENT_UNDELIVERED, .handle = s->handle,
                                  .leg = from->name, .digit = *digits};
            event_add(core, &event);
        }
    }
}

/* The caller's answer to a notice that asks for a key; never while card data may be keyed. */
static void key_pressed(struct core *core, struct session *s, char digit) {
    if (!s->keys || s->paused) return;
    struct event event = {.kind = EVENT_KEY, .handle = s->handle, .leg = CALLER, .digit = digit};
    event_add(core, &event);
}

static void press_ended(struct core *core, struct session *s, struct leg *leg, char digit,
                        bool held, ns_t now) {
    if (leg->name == CALLER && held) return; /* pressed while its digits go nowhere */
    if (held) {
        char released[MAX_CODE_DIGITS + 2];
        int code = gate_ends(&s->gate, &core->codes, digit, now, released);
        deliver(core, s, leg, released);
        if (code >= 0) {
            struct event event = {.kind = EVENT_CODE, .handle = s->handle, .leg = leg->name,
                                  .code = code};
            event_add(core, &event);
        }
        session_wants_ticks(core, s);
    } else if (other(s, leg)->event_type < 0) {
        char alone[2] = {digit, 0};
        deliver(core, s, leg, alone);
    }
}

static void relay_event(struct core *core, struct session *s, struct leg *leg, uint8_t *packet,
                        size_t size, ns_t now) {
    if (leg->name == HELPER) return;
    struct leg *to = other(s, leg);
    struct heard heard = event_hear(&leg->events, get32(packet + 8), get32(packet + 4),
                                    packet + RTP_HEADER, now);
    if (heard.before) press_ended(core, s, leg, heard.before, leg->press_held, now);
    if (heard.began) {
        char digit = event_digit(packet[RTP_HEADER]);
        /* When it begins: whoever presses in time objects in time, however long the press. */
        if (leg->name == CALLER && digit) key_pressed(core, s, digit);
        leg->press_sent = leg->press_beside = false;
        leg->press_held = leg->name == AGENT &&
                          gate_begins(&s->gate, &core->codes, digit, sender_busy(&to->digits));
        session_wants_ticks(core, s);
    }
    /* Card data: the caller's digits go nowhere, nor does the rest of a press that began so. */
    if (leg->name == CALLER && s->paused) leg->press_held = true;
    bool held = leg->press_held;
    if (heard.ended) press_ended(core, s, leg, heard.ended, held, now);
    if (held || to->event_type < 0) stream_skip(&to->out, get16(packet + 2), get32(packet + 8));
    if (held || get32(packet + 4) != leg->events.timestamp ||
        packet[RTP_HEADER] != leg->events.code)
        return;
    if (to->event_type < 0 || !gate_open(s, to) || !can_hear(to) || sender_busy(&to->digits)) return;
    /* A digit is heard through a prompt too: it is not sound. Following its source from packet to
     * packet would tear the event in pieces there. */
    leg->press_beside |= sounds_of_ours(s, to);
    if (leg->press_beside) {
        stream_emit_event(&to->out, packet, (uint8_t)to->event_type, !leg->press_sent, true, now);
    } else {
        uint8_t kind = (uint8_t)((packet[1] & RTP_MARKER) | to->event_type);
        if (!stream_forward(&to->out, packet, kind, 0, true, now)) return;
    }
    leg->press_sent = true;
    leg_send(core, s, to, packet, size);
}

void leg_digit(struct core *core, struct session *s, struct leg *leg, char digit, ns_t now) {
    if (event_code(digit) < 0 || leg->name == HELPER) return;
    if (leg->name == CALLER) {
        char alone[2] = {digit, 0};
        key_pressed(core, s, digit);
        if (!s->paused) deliver(core, s, leg, alone);
    } else if (gate_begins(&s->gate, &core->codes, digit, sender_busy(&s->leg[CALLER].digits))) {
        press_ended(core, s, leg, digit, true, now);
    } else {
        char alone[2] = {digit, 0};
        deliver(core, s, leg, alone);
    }
}

/* ----------------------------------------------------------------------------- what comes in */

void relay_receive(struct core *core, struct session *s, struct leg *leg, uint8_t *packet,
                   size_t size, const struct endpoint *from, ns_t now) {
    if (size < RTP_HEADER || size > RTP_LONGEST || packet[0] >> 6 != 2) {
        leg->malformed++;
        return;
    }
    bool settled = latch_settled(&leg->latch, from);
    int type = packet[1] & 0x7F;
    bool is_event = type == leg->event_type, is_noise = type == leg->noise_type;
    if (type != leg->voice_type && !is_event && !is_noise) {
        if (settled || same_endpoint(from, &leg->latch.sdp)) leg->wrong_type++;
        else leg->wrong_source++;
        return;
    }
    if (!settled && !latch_would_accept(&leg->latch, from, now)) {
        leg->wrong_source++;
        return;
    }
    if (leg->srtp_in) {
        int length = (int)size;
        if (srtp_unprotect(leg->srtp_in, packet, &length) != srtp_err_status_ok) {
            leg->srtp_refused++;
            return;
        }
        size = (size_t)length;
    }
    size = packet[0] == RTP_PLAIN ? size : rtp_make_plain(packet, size);
    if (!size || (is_event && size < RTP_HEADER + EVENT_BYTES)) {
        leg->malformed++;
        return;
    }
    if (!settled) latch_accept(&leg->latch, from, now);
    uint16_t sequence = get16(packet + 2);
    uint32_t timestamp = get32(packet + 4);
    leg->last_at = now;
    core->packets++;
    if (!receiver_count(&leg->rx, sequence, timestamp, get32(packet + 8), clock_of(leg->codec),
                        !is_event, now))
        return;
    if (is_event) {
        relay_event(core, s, leg, packet, size, now);
        return;
    }
    /* A packet without payload keeps a NAT binding open (RFC 6263 section 4.1): the far end's
     * business with us, not with the other leg. */
    if (size == RTP_HEADER) {
        if (leg->name != HELPER) stream_skip(&other(s, leg)->out, sequence, get32(packet + 8));
        return;
    }
    if (s->tap && !s->paused && !is_noise) {
        const uint8_t *codes = packet + RTP_HEADER;
        size_t count = size - RTP_HEADER;
        bool linear = is_g711(leg->codec);
        if (leg->name == CALLER) {
            /* Before it is relayed: the tap wants the caller's own numbers and codec. Events are
             * digits, perhaps of a card number: never tapped. */
            bool echo = linear && echo_likely(&s->echo, leg->codec, codes, count, now);
            tap_add(core, s, 0, leg->codec, echo, sequence, timestamp, codes, count, now);
        } else if (linear) {
            int level = echo_spoken(&s->echo, leg->codec, codes, count, now);
            if (leg->name == AGENT) voice_heard(&s->voice, level, now);
        }
    }
    if (s->conference && !is_noise) conference_hear(leg, packet, size);
    else if (leg->name != HELPER)
        relay_voice(core, s, leg, other(s, leg), packet, size, is_noise, now);
}

void relay_receive_rtcp(struct core *core, struct session *s, struct leg *leg, uint8_t *packet,
                        size_t size, const struct endpoint *from, ns_t now, ns_t realtime) {
    (void)core;
    (void)s;
    if (!same_host(from, &leg->latch.destination)) {
        leg->wrong_source++;
        return;
    }
    if (leg->srtp_in) {
        int length = (int)size;
        if (srtp_unprotect_rtcp(leg->srtp_in, packet, &length) != srtp_err_status_ok) {
            leg->srtp_refused++;
            return;
        }
        size = (size_t)length;
    }
    if (rtcp_read(&leg->rtcp, packet, size, leg->out.ssrc, now, realtime)) leg->rtcp_to = *from;
}

/* ------------------------------------------------------------------------------------- ticks */

static void report(struct core *core, struct session *s, struct leg *leg, ns_t now, ns_t realtime) {
    PACKET_BUFFER(packet);
    bool sent_lately = leg->out.sent != leg->reported_sent;
    leg->reported_sent = leg->out.sent;
    leg->rtcp.due = now + RTCP_INTERVAL;
    if (!can_hear(leg) || (!sent_lately && !leg->rx.begun)) return;
    struct endpoint to = leg->rtcp_to;
    if (!endpoint_known(&to) || !same_host(&to, &leg->latch.destination)) {
        to = leg->latch.destination;
        endpoint_set_port(&to, (uint16_t)(endpoint_port(&to) + 1));
    }
    size_t size = rtcp_write(&leg->rtcp, &leg->rx, &leg->out, sent_lately, packet, now, realtime);
    if (leg->srtp_out) {
        int length = (int)size;
        if (srtp_protect_rtcp(leg->srtp_out, packet, &length) != srtp_err_status_ok) return;
        size = (size_t)length;
    }
    core->output(core, s, leg, true, packet, size, &to);
}

static void sweep(struct core *core, ns_t now, ns_t realtime) {
    int left = core->sessions;
    for (int slot = 0; slot < MAX_SESSIONS && left; slot++) {
        struct session *s = core->session[slot];
        if (!s) continue;
        left--;
        for (int i = 0; i < LEGS; i++) {
            if (s->leg[i].open && now >= s->leg[i].rtcp.due) report(core, s, &s->leg[i], now, realtime);
        }
    }
}

static bool still_busy(const struct session *s) {
    if (s->gate.count || s->conference) return true;
    for (int i = 0; i < LEGS; i++) {
        const struct leg *leg = &s->leg[i];
        if (leg->play.active || leg->digits.count || leg->events.running) return true;
    }
    return false;
}

static void tick_session(struct core *core, struct session *s, ns_t now, ns_t realtime) {
    for (int i = 0; i < LEGS; i++) {
        struct leg *leg = &s->leg[i];
        if (!leg->open) continue;
        char lost = event_expire(&leg->events, now);
        if (lost) press_ended(core, s, leg, lost, leg->press_held, now);
        if (leg->play.active) play_tick(core, s, leg, now, realtime);
        if (sender_busy(&leg->digits)) {
            PACKET_BUFFER(packet);
            size_t size;
            if (leg->event_type < 0 || !can_hear(leg)) sender_clear(&leg->digits);
            while ((size = sender_packet(&leg->digits, &leg->out, (uint8_t)leg->event_type, packet,
                                         sounds_of_ours(s, leg), now)))
                leg_send(core, s, leg, packet, size);
        }
    }
    char released[MAX_CODE_DIGITS + 2];
    if (gate_expires(&s->gate, now, released)) deliver(core, s, &s->leg[AGENT], released);
    if (s->conference) {
        if (now - s->conference_due > LONGEST_LAG) s->conference_due = now;
        for (int i = 0; i < BURST && s->conference_due <= now; i++) {
            conference_tick(core, s, now, realtime);
            s->conference_due += 20 * MS;
        }
    }
}

void relay_tick(struct core *core, ns_t now, ns_t realtime) {
    for (struct session **at = &core->ticking; *at;) {
        struct session *s = *at;
        tick_session(core, s, now, realtime);
        if (still_busy(s)) {
            at = &s->tick_next;
        } else {
            *at = s->tick_next;
            s->ticking = false;
        }
    }
    if (now >= core->tap_due) {
        tap_flush(core, now);
        core->tap_due = now + TAP_EVERY - TICK / 2;
    }
    if (now >= core->sweep_due) {
        sweep(core, now, realtime);
        core->sweep_due = now + SWEEP_EVERY;
    }
}
