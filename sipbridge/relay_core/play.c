/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "relay_parts.h"

#include <stdlib.h>

/* The far end heard nothing for this long: a mixed tone goes on alone. */
#define TONE_ALONE_AFTER (40 * MS)

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

void play_finish(struct core *core, struct session *s, struct leg *leg, enum play_end end,
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
    play_finish(core, s, leg, PLAY_STOPPED, realtime);
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
        leg_send(core, s, leg, packet, RTP_HEADER + count);
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
        leg_send(core, s, leg, packet, RTP_HEADER + size);
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

void play_tick(struct core *core, struct session *s, struct leg *leg, ns_t now, ns_t realtime) {
    struct play *p = &leg->play;
    if (!can_hear(leg)) {
        play_finish(core, s, leg, PLAY_NO_ADDRESS, realtime);
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
            play_finish(core, s, leg, PLAY_WRONG_CODEC, realtime);
            return;
        }
    }
    if (exhausted(p) && now >= p->until - 2 * MS) {
        play_finish(core, s, leg, PLAY_DONE, realtime);
    }
}

void play_add_tone(struct play *p, int16_t *samples, size_t count, ns_t now, ns_t realtime) {
    uint8_t codes[RTP_LONGEST];
    int16_t tone[RTP_LONGEST];
    take_codes(p, CODEC_PCMU, codes, count, now, realtime);
    g711_decode(CODEC_PCMU, codes, tone, count);
    for (size_t i = 0; i < count; i++) {
        int sum = samples[i] + tone[i];
        samples[i] = (int16_t)(sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum);
    }
}
