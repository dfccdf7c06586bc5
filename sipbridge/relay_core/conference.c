/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "relay_parts.h"

#include <stdlib.h>

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
void conference_tick(struct core *core, struct session *s, ns_t now, ns_t realtime) {
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
        if (to->play.active) play_add_tone(&to->play, mixed, FRAME, now, realtime);
        if (to->protect) ear_process(to->ear, mixed, FRAME);
        g711_encode(to->codec, mixed, packet + RTP_HEADER, FRAME);
        leg_send(core, s, to, packet, RTP_HEADER + FRAME);
    }
}

void conference_hear(struct leg *leg, const uint8_t *packet, size_t size) {
    if (!is_g711(leg->codec)) return;
    if (!leg->jitter) leg->jitter = calloc(1, sizeof *leg->jitter);
    if (!leg->jitter) return;
    int16_t samples[RTP_LONGEST];
    g711_decode(leg->codec, packet + RTP_HEADER, samples, size - RTP_HEADER);
    jitter_put(leg->jitter, get32(packet + 4), samples, size - RTP_HEADER);
}
