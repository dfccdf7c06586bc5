/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "relay_parts.h"

#include <stdlib.h>
#include <sys/random.h>

/* ------------------------------------------------------------------------------------- calls */

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
    if (s->tap && !s->paused) tap_add(core, s, 1, 0, false, 0, 0, NULL, 0, now);
    if (s->ticking) session_untick(core, s);
    core->session[s->handle % MAX_SESSIONS] = NULL;
    core->sessions--;
    free(s);
}

void session_wants_ticks(struct core *core, struct session *s) {
    if (s->ticking) return;
    s->ticking = true;
    s->tick_next = core->ticking;
    core->ticking = s;
}

void session_untick(struct core *core, struct session *s) {
    for (struct session **at = &core->ticking; *at; at = &(*at)->tick_next) {
        if (*at != s) continue;
        *at = s->tick_next;
        break;
    }
    s->ticking = false;
}

/* -------------------------------------------------------------------------------------- legs */

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
    /* The lower half of the numbers: who misses the first packets of an SRTP stream cannot know that
     * they wrapped on the way, and would read nothing ever after (RFC 3711 section 3.3.1). */
    stream_init(&leg->out, random[0], (uint16_t)(random[1] & 0x7FFF), random[2]);
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
    if (leg->play.active) play_finish(core, s, leg, PLAY_STOPPED, realtime);
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
    memset(&s->voice, 0, sizeof s->voice); /* another person's */
}

void leg_negotiate(struct session *s, struct leg *leg, const struct leg_update *u, ns_t now) {
    if (endpoint_known(&leg->latch.sdp) && endpoint_known(&u->sdp) &&
        !same_endpoint(&u->sdp, &leg->latch.sdp)) {
        /* Somebody else, or from elsewhere: what comes now is no late packet of before. */
        receiver_restart(&leg->rx);
        leg->events.begun = false;
        if (leg->name != HELPER) stream_release(&s->leg[leg->name == CALLER ? AGENT : CALLER].out);
    }
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
                   bool keys, ns_t now) {
    /* What was not relayed meanwhile is not a loss: the next packet is the next in line. */
    if (caller_to_agent != s->caller_to_agent || conference != s->conference)
        stream_release(&s->leg[AGENT].out);
    if (agent_to_caller != s->agent_to_caller || conference != s->conference)
        stream_release(&s->leg[CALLER].out);
    if (s->tap && (!tap || paused) && !s->paused) tap_add(core, s, 1, 0, false, 0, 0, NULL, 0, now);
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
    s->keys = keys;
    if (conference) session_wants_ticks(core, s);
}
