/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "relay.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum { FRAME = 160 /* samples of 20 ms */ };
/* The far end heard nothing for this long: a mixed tone goes on alone. */
#define TONE_ALONE_AFTER (40 * MS)
/* A lag beyond this is a machine that was stopped: time goes on from now. */
#define LONGEST_LAG (1 * SECOND)
#define TAP_EVERY (20 * MS)
#define SWEEP_EVERY (100 * MS)
enum { BURST = 3 /* packets that one stream may send at a tick */ };

static uint32_t clock_of(int codec) { return codec == CODEC_OPUS ? 48000 : 8000; }

static struct leg *other(struct session *s, const struct leg *leg) {
    return &s->leg[leg->name == CALLER ? AGENT : CALLER];
}

/* Whether the other leg's digits may go to this one. */
static bool gate_open(const struct session *s, const struct leg *to) {
    return to->name == AGENT ? s->caller_to_agent : to->name == CALLER && s->agent_to_caller;
}

static bool can_hear(const struct leg *leg) {
    return leg->open && leg->codec != CODEC_NONE && endpoint_known(&leg->latch.destination);
}

static void send_packet(struct core *core, struct session *s, struct leg *to, uint8_t *packet,
                        size_t size) {
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

/* ------------------------------------------------------------------------------- prompts */

void clip_release(struct clip *clip) {
    if (!clip || atomic_fetch_sub(&clip->users, 1) != 1) return;
    free(clip->law[0]);
    free(clip->law[1]);
    free(clip->offsets);
    free(clip->data);
    free(clip);
}

static bool exhausted(const struct play *p) { return p->file >= p->count; }

static void note_span(struct play *p, ns_t length, ns_t now, ns_t realtime) {
    /* The far end plays one frame after the other: those of a burst are heard in turn. */
    ns_t begins = now > p->until ? now : p->until;
    p->until = begins + length;
    /* One shift for the whole prompt: the wall clock may be set meanwhile. */
    if (!p->frames) p->shift = realtime - now;
    ns_t shift = p->shift;
    if (p->file == p->begun) {
        p->span[p->file][0] = begins + shift;
        p->begun++;
    }
    p->span[p->file][1] = p->until + shift;
    p->frames++;
}

static void next_file(struct play *p) {
    p->offset = 0;
    p->file++;
    if (p->loop && exhausted(p)) p->file = 0;
}

/* The next samples of a G.711 prompt; a file's last frame is filled up with silence. */
static void take_codes(struct play *p, int law, uint8_t *codes, size_t count, ns_t now,
                       ns_t realtime) {
    memset(codes, g711_silence(law), count);
    if (exhausted(p)) return;
    const struct clip *clip = p->clip[p->file];
    if (clip->codec != CODEC_PCMU) return;
    size_t left = clip->samples - p->offset;
    memcpy(codes, clip->law[law == CODEC_PCMA] + p->offset, left < count ? left : count);
    note_span(p, (ns_t)count * SECOND / 8000, now, realtime);
    p->offset += count;
    if (p->offset >= clip->samples) next_file(p);
}

static void finish_play(struct core *core, struct session *s, struct leg *leg, enum play_end end,
                        ns_t realtime) {
    struct play *p = &leg->play;
    struct event event = {
        .kind = EVENT_PLAYED, .handle = s->handle, .leg = leg->name, .play_id = p->id, .end = end,
        .frames = p->frames, .failed = p->failed, .spans = p->begun,
    };
    /* Nearly all frames must have left the machine (98 %). */
    if (end == PLAY_DONE && p->failed * 50 > p->frames) event.end = PLAY_UNHEARD;
    for (int i = 0; i < p->begun; i++) {
        event.span[i][0] = p->span[i][0];
        /* What is cut off ends now. */
        ns_t cut = realtime > p->span[i][0] ? realtime : p->span[i][0];
        event.span[i][1] = p->span[i][1] < cut ? p->span[i][1] : cut;
    }
    for (int i = 0; i < p->count; i++) clip_release(p->clip[i]);
    memset(p, 0, sizeof *p);
    event_add(core, &event);
}

bool play_start(struct core *core, struct session *s, struct leg *leg, uint64_t id,
                struct clip **clips, int count, bool loop, bool mix, ns_t now) {
    if (!can_hear(leg) || count < 1 || count > MAX_CLIPS || leg->play.active) return false;
    struct play *p = &leg->play;
    *p = (struct play){.active = true, .loop = loop, .mix = mix, .id = id, .count = count, .due = now};
    for (int i = 0; i < count; i++) {
        atomic_fetch_add(&clips[i]->users, 1);
        p->clip[i] = clips[i];
    }
    session_wants_ticks(core, s);
    return true;
}

bool play_stop(struct core *core, struct session *s, struct leg *leg, ns_t realtime) {
    if (!leg->play.active) return false;
    finish_play(core, s, leg, PLAY_STOPPED, realtime);
    return true;
}

/* One packet of the prompt; false when none is due any more. */
static bool emit_prompt(struct core *core, struct session *s, struct leg *leg, ns_t now,
                        ns_t realtime) {
    struct play *p = &leg->play;
    PACKET_BUFFER(packet);
    const struct clip *clip = p->clip[p->file];
    ns_t length;
    bool begins = !p->continues;
    if (clip->codec == CODEC_PCMU) {
        if (!is_g711(leg->codec)) return false;
        size_t count = p->mix ? FRAME : leg->ptime_ms * 8;
        length = (ns_t)count * SECOND / 8000;
        if (p->mix) {
            begins = !p->alone;
            p->alone = true;
        }
        take_codes(p, leg->codec, packet + RTP_HEADER, count, now, realtime);
        stream_emit(&leg->out, packet, (uint8_t)leg->voice_type, (uint32_t)count, begins, now);
        send_packet(core, s, leg, packet, RTP_HEADER + count);
    } else {
        if (clip->codec != leg->codec) return false;
        size_t at = clip->offsets[p->offset], size = clip->offsets[p->offset + 1] - at;
        if (size > RTP_LONGEST - RTP_HEADER) return false;
        length = (ns_t)clip->packet_ms * MS;
        memcpy(packet + RTP_HEADER, clip->data + at, size);
        stream_emit(&leg->out, packet, (uint8_t)leg->voice_type,
                    clip->packet_ms * leg->out.clock / 1000, begins, now);
        note_span(p, length, now, realtime);
        if (++p->offset >= clip->packets) next_file(p);
        send_packet(core, s, leg, packet, RTP_HEADER + size);
    }
    p->continues = true;
    p->due += length;
    return true;
}

/* A tone that can't be mixed (another codec) goes by unheard while the leg hears something else. */
static void pass_by(struct play *p, ns_t now) {
    const struct clip *clip = p->clip[p->file];
    bool law = clip->codec == CODEC_PCMU;
    p->offset += law ? FRAME : 1;
    p->due = now + (law ? 20 : (ns_t)clip->packet_ms) * MS;
    p->frames++;
    p->failed++;
    if (p->offset >= (law ? clip->samples : clip->packets)) next_file(p);
}

static void tick_play(struct core *core, struct session *s, struct leg *leg, ns_t now,
                      ns_t realtime) {
    struct play *p = &leg->play;
    if (!can_hear(leg)) {
        finish_play(core, s, leg, PLAY_NO_ADDRESS, realtime);
        return;
    }
    if (now - p->due > LONGEST_LAG) p->due = now;
    for (int i = 0; i < BURST && p->due <= now && !exhausted(p); i++) {
        if (p->mix && (s->conference || (!p->alone && now - leg->out.at < TONE_ALONE_AFTER))) {
            if (is_g711(leg->codec)) p->due = now + 20 * MS; /* relayed packets carry it */
            else pass_by(p, now);
            break;
        }
        if (!emit_prompt(core, s, leg, now, realtime)) {
            finish_play(core, s, leg, PLAY_WRONG_CODEC, realtime);
            return;
        }
    }
    if (exhausted(p) && now >= p->until - 2 * MS) {
        finish_play(core, s, leg, PLAY_DONE, realtime);
    }
}

/* ------------------------------------------------------------------------------- relaying */

static void add_tone(struct play *p, int16_t *samples, size_t count, ns_t now, ns_t realtime) {
    uint8_t codes[RTP_LONGEST];
    int16_t tone[RTP_LONGEST];
    take_codes(p, CODEC_PCMU, codes, count, now, realtime);
    g711_decode(CODEC_PCMU, codes, tone, count);
    for (size_t i = 0; i < count; i++) {
        int sum = samples[i] + tone[i];
        samples[i] = (int16_t)(sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum);
    }
}

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
        add_tone(&to->play, samples, count, now, wall_clock());
    }
    bool changed = mixing;
    if (to->protect) changed |= ear_process(to->ear, samples, (int)count) != 0;
    if (changed) g711_encode(to->codec, samples, payload, count);
    else g711_transcode(from->codec, to->codec, payload, count);
}

static void relay_voice(struct core *core, struct session *s, struct leg *from, struct leg *to,
                        uint8_t *packet, size_t size, bool is_noise, ns_t now) {
    if (s->conference || !gate_open(s, to) || !can_hear(to)) return;
    if ((to->play.active && !to->play.mix) || sender_busy(&to->digits)) return;
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
    send_packet(core, s, to, packet, size);
}

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
    send_packet(core, s, to, packet, size);
}

void leg_digit(struct core *core, struct session *s, struct leg *leg, char digit, ns_t now) {
    if (event_code(digit) < 0 || leg->name == HELPER) return;
    if (leg->name == CALLER) {
        char alone[2] = {digit, 0};
        if (!s->paused) deliver(core, s, leg, alone);
    } else if (gate_begins(&s->gate, &core->codes, digit, sender_busy(&s->leg[CALLER].digits))) {
        press_ended(core, s, leg, digit, true, now);
    } else {
        char alone[2] = {digit, 0};
        deliver(core, s, leg, alone);
    }
}

/* ----------------------------------------------------------------------------- conference */

static void jitter_take(struct jitter_buffer *j, int16_t *samples) {
    for (int i = 0; i < FRAME; i++) {
        uint32_t at = (j->read + (uint32_t)i) % JITTER_SAMPLES;
        samples[i] = j->begun ? j->samples[at] : 0;
        j->samples[at] = 0;
    }
    if (j->begun) j->read += FRAME;
}

static void jitter_put(struct jitter_buffer *j, uint32_t timestamp, const int16_t *samples,
                       size_t count) {
    int32_t ahead = (int32_t)(timestamp - j->read);
    bool jump = !j->begun || ahead > JITTER_SAMPLES - FRAME || ahead < -JITTER_SAMPLES;
    if (!jump && ahead < 0) jump = ++j->late >= 3;
    if (jump) {
        memset(j, 0, sizeof *j);
        j->begun = true;
        j->read = timestamp - JITTER_DELAY;
        ahead = JITTER_DELAY;
    }
    if (ahead < 0) return;
    j->late = 0;
    /* A clock that is faster than ours: leave a frame out before the delay grows. */
    j->early = ahead > 2 * JITTER_DELAY ? j->early + 1 : 0;
    if (j->early >= 25) {
        int16_t left_out[FRAME];
        jitter_take(j, left_out);
        j->early = 0;
    }
    for (size_t i = 0; i < count && (size_t)ahead + i < JITTER_SAMPLES; i++) {
        j->samples[(timestamp + i) % JITTER_SAMPLES] = samples[i];
    }
}

static int16_t clip16(int value) {
    return (int16_t)(value > 32767 ? 32767 : value < -32768 ? -32768 : value);
}

/* 20 ms of a conference: each leg hears the sum of the two others. */
static void tick_conference(struct core *core, struct session *s, ns_t now, ns_t realtime) {
    int16_t said[LEGS][FRAME];
    for (int i = 0; i < LEGS; i++) {
        struct leg *leg = &s->leg[i];
        if (leg->jitter && leg->open) jitter_take(leg->jitter, said[i]);
        else memset(said[i], 0, sizeof said[i]);
    }
    for (int i = 0; i < LEGS; i++) {
        struct leg *to = &s->leg[i];
        if (!can_hear(to) || !is_g711(to->codec) || sender_busy(&to->digits)) continue;
        if (to->play.active && !to->play.mix) continue;
        int16_t mixed[FRAME];
        PACKET_BUFFER(packet);
        for (int k = 0; k < FRAME; k++) {
            int sum = 0;
            for (int from = 0; from < LEGS; from++) sum += from == i ? 0 : said[from][k];
            mixed[k] = clip16(sum);
        }
        stream_emit(&to->out, packet, (uint8_t)to->voice_type, FRAME, now - to->out.at > 60 * MS,
                    now);
        if (s->record && !s->paused && i != HELPER) {
            /* Channel 0 is the caller alone; channel 1 what the caller hears. */
            g711_encode(CODEC_PCMU, i == AGENT ? said[CALLER] : mixed, packet + RTP_HEADER, FRAME);
            record_add(core, s, i == AGENT ? 0 : 1, CODEC_PCMU, get32(packet + 4),
                       packet + RTP_HEADER, FRAME, realtime);
        }
        if (to->play.active) add_tone(&to->play, mixed, FRAME, now, realtime);
        if (to->protect) ear_process(to->ear, mixed, FRAME);
        g711_encode(to->codec, mixed, packet + RTP_HEADER, FRAME);
        send_packet(core, s, to, packet, RTP_HEADER + FRAME);
    }
}

static void conference_hear(struct leg *leg, const uint8_t *packet, size_t size) {
    if (!is_g711(leg->codec)) return;
    if (!leg->jitter) leg->jitter = calloc(1, sizeof *leg->jitter);
    if (!leg->jitter) return;
    int16_t samples[RTP_LONGEST];
    g711_decode(leg->codec, packet + RTP_HEADER, samples, size - RTP_HEADER);
    jitter_put(leg->jitter, get32(packet + 4), samples, size - RTP_HEADER);
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
    if (leg->name == CALLER && s->tap && !s->paused && !is_noise) {
        /* Before it is relayed: the tap wants the caller's own numbers and codec. Events are
         * digits, perhaps of a card number: never tapped. */
        tap_add(core, s, 0, leg->codec, sequence, timestamp, packet + RTP_HEADER,
                size - RTP_HEADER, now);
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

/* ---------------------------------------------------------------------------------- ticks */

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
        if (leg->play.active) tick_play(core, s, leg, now, realtime);
        if (sender_busy(&leg->digits)) {
            PACKET_BUFFER(packet);
            size_t size;
            if (leg->event_type < 0 || !can_hear(leg)) sender_clear(&leg->digits);
            while ((size = sender_packet(&leg->digits, &leg->out, (uint8_t)leg->event_type, packet,
                                         sounds_of_ours(s, leg), now)))
                send_packet(core, s, leg, packet, size);
        }
    }
    char released[MAX_CODE_DIGITS + 2];
    if (gate_expires(&s->gate, now, released)) deliver(core, s, &s->leg[AGENT], released);
    if (s->conference) {
        if (now - s->conference_due > LONGEST_LAG) s->conference_due = now;
        for (int i = 0; i < BURST && s->conference_due <= now; i++) {
            tick_conference(core, s, now, realtime);
            s->conference_due += 20 * MS;
        }
    }
}

void session_wants_ticks(struct core *core, struct session *s) {
    if (s->ticking) return;
    s->ticking = true;
    s->tick_next = core->ticking;
    core->ticking = s;
}

static void untick(struct core *core, struct session *s) {
    for (struct session **at = &core->ticking; *at; at = &(*at)->tick_next) {
        if (*at != s) continue;
        *at = s->tick_next;
        break;
    }
    s->ticking = false;
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

/* ---------------------------------------------------------------------------- what is set up */

bool core_init(struct core *core) {
    g711_init();
    core->batch.data = malloc(TAP_LONGEST);
    core->batch.owner = malloc(TAP_RECORDS * sizeof *core->batch.owner);
    core->batch.size = 16;
    core->record_limit = (size_t)64 * 1024 * 1024;
    return core->batch.data && core->batch.owner;
}

void core_free(struct core *core) {
    for (int slot = 0; slot < MAX_SESSIONS; slot++) {
        if (core->session[slot]) session_close(core, core->session[slot], 0, 0);
    }
    free(core->batch.data);
    free(core->batch.owner);
    for (int i = 0; i < TAP_BACKLOG; i++) {
        free(core->backlog[i].data);
        free(core->backlog[i].owner);
    }
    while (core->record_first) {
        struct record_block *next = core->record_first->next;
        free(core->record_first);
        core->record_first = next;
    }
    free(core->events);
}

struct session *session_find(struct core *core, uint32_t handle) {
    struct session *s = core->session[handle % MAX_SESSIONS];
    return s && s->handle == handle ? s : NULL;
}

struct session *session_open(struct core *core, const uint8_t id[CALL_ID]) {
    for (int tried = 0; tried < MAX_SESSIONS; tried++) {
        int slot = core->next_slot;
        core->next_slot = (slot + 1) % MAX_SESSIONS;
        if (core->session[slot]) continue;
        struct session *s = calloc(1, sizeof *s);
        if (!s) return NULL;
        /* The generation makes a late packet's handle miss the slot's next call; no handle is 0. */
        if (core->generation[slot] == UINT16_MAX) core->generation[slot] = 0;
        s->handle = (uint32_t)(++core->generation[slot]) * MAX_SESSIONS + (uint32_t)slot;
        memcpy(s->id, id, CALL_ID);
        for (int i = 0; i < LEGS; i++) {
            s->leg[i].name = (enum leg_name)i;
            s->leg[i].rtp_fd = s->leg[i].rtcp_fd = -1;
            s->leg[i].codec = CODEC_NONE;
            s->leg[i].voice_type = s->leg[i].event_type = s->leg[i].noise_type = -1;
        }
        core->session[slot] = s;
        core->sessions++;
        return s;
    }
    return NULL;
}

void session_close(struct core *core, struct session *s, ns_t now, ns_t realtime) {
    for (int i = 0; i < LEGS; i++) {
        if (s->leg[i].open) leg_close(core, s, (enum leg_name)i, realtime);
    }
    if (s->tap && !s->paused) tap_add(core, s, 1, 0, 0, 0, NULL, 0, now);
    if (s->ticking) untick(core, s);
    core->session[s->handle % MAX_SESSIONS] = NULL;
    core->sessions--;
    free(s);
}

/* Numbers that an attacker must not guess (RFC 3550 sections 5.1, 8.1). */
static void dice(void *at, size_t size) {
    if (getrandom(at, size, 0) != (ssize_t)size) abort(); /* 256 bytes at most: never short */
}

void leg_open(struct core *core, struct session *s, enum leg_name name, int rtp_fd, int rtcp_fd,
              ns_t now) {
    struct leg *leg = &s->leg[name];
    memset(leg, 0, sizeof *leg);
    leg->open = true;
    leg->name = name;
    leg->rtp_fd = rtp_fd;
    leg->rtcp_fd = rtcp_fd;
    leg->codec = CODEC_NONE;
    leg->voice_type = leg->event_type = leg->noise_type = -1;
    leg->ptime_ms = 20;
    leg->latch.networks = &s->networks[name != CALLER];
    leg->latch.window = core->latch_window;
    uint32_t random[5];
    dice(random, sizeof random);
    stream_init(&leg->out, random[0], (uint16_t)random[1], random[2]);
    leg->rtcp.rtt_ms = -1;
    for (int i = 0; i < 16; i++) {
        leg->rtcp.cname[i] = "0123456789abcdef"[((const uint8_t *)(random + 3))[i / 2] >> (i % 2 * 4) & 15];
    }
    /* The first report comes early and at no common moment (RFC 3550 section 6.2). */
    leg->rtcp.due = now + RTCP_INTERVAL / 2 + (ns_t)(random[1] >> 16) * (RTCP_INTERVAL / 2) / 65536;
    if (name != CALLER) {
        leg->ear = malloc(sizeof *leg->ear);
        if (leg->ear) ear_init(leg->ear, &core->ear);
    }
}

void leg_close(struct core *core, struct session *s, enum leg_name name, ns_t realtime) {
    struct leg *leg = &s->leg[name];
    if (leg->play.active) finish_play(core, s, leg, PLAY_STOPPED, realtime);
    core->past_packets += receiver_received(&leg->rx);
    core->past_malformed += leg->malformed;
    core->past_wrong_source += leg->wrong_source;
    if (leg->srtp_in) srtp_dealloc(leg->srtp_in);
    if (leg->srtp_out) srtp_dealloc(leg->srtp_out);
    free(leg->ear);
    free(leg->jitter);
    memset(leg, 0, sizeof *leg);
    leg->name = name;
    leg->rtp_fd = leg->rtcp_fd = -1;
    leg->codec = CODEC_NONE;
    leg->voice_type = leg->event_type = leg->noise_type = -1;
    if (name == AGENT) memset(&s->gate, 0, sizeof s->gate); /* a code that is not finished now */
}

void leg_promote(struct core *core, struct session *s) {
    (void)core;
    struct leg *from = &s->leg[HELPER], *to = &s->leg[AGENT];
    *to = *from;
    to->name = AGENT;
    memset(from, 0, sizeof *from);
    from->name = HELPER;
    from->rtp_fd = from->rtcp_fd = -1;
    from->codec = CODEC_NONE;
    from->voice_type = from->event_type = from->noise_type = -1;
    memset(&s->gate, 0, sizeof s->gate);
}

void leg_negotiate(struct session *s, struct leg *leg, const struct leg_update *u, ns_t now) {
    (void)s;
    latch_arm(&leg->latch, &u->sdp, &u->signalling, now);
    leg->rtcp_to = u->rtcp;
    if (!endpoint_known(&u->sdp)) stream_release(&leg->out); /* a hold is no loss */
    if (leg->codec != u->codec && leg->codec != CODEC_NONE) {
        /* Another clock perhaps: the next packet begins anew. */
        stream_release(&leg->out);
        leg->rx.transit = INT64_MIN;
        if (leg->ear) ear_reset(leg->ear);
    }
    leg->codec = u->codec;
    if (leg->out.clock != clock_of(u->codec)) {
        stream_release(&leg->out);
        leg->out.clock = clock_of(u->codec);
        leg->out.samples = leg->out.clock / 50;
    }
    leg->voice_type = u->voice_type;
    leg->event_type = u->event_type;
    leg->noise_type = u->noise_type;
    leg->ptime_ms = u->ptime_ms;
    leg->protect = u->protect && leg->ear && is_g711(u->codec);
}

void session_allow(struct core *core, struct session *s, bool caller_to_agent,
                   bool agent_to_caller, bool tap, bool record, bool paused, bool conference,
                   ns_t now) {
    /* What was not relayed meanwhile is not a loss: the next packet is the next in line. */
    if (caller_to_agent != s->caller_to_agent || conference != s->conference)
        stream_release(&s->leg[AGENT].out);
    if (agent_to_caller != s->agent_to_caller || conference != s->conference)
        stream_release(&s->leg[CALLER].out);
    if (s->tap && (!tap || paused) && !s->paused) tap_add(core, s, 1, 0, 0, 0, NULL, 0, now);
    if (conference && !s->conference) {
        s->conference_due = now;
        for (int i = 0; i < LEGS; i++) {
            if (s->leg[i].jitter) memset(s->leg[i].jitter, 0, sizeof *s->leg[i].jitter);
        }
    }
    if (paused && !s->paused) {
        sender_clear(&s->leg[AGENT].digits);
        s->leg[CALLER].press_held = true;
    }
    s->caller_to_agent = caller_to_agent;
    s->agent_to_caller = agent_to_caller;
    s->tap = tap;
    s->record = record;
    s->paused = paused;
    s->conference = conference;
    if (conference) session_wants_ticks(core, s);
}
