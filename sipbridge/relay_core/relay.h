/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The relay: what comes in on a leg of a call, and what goes out on the others.
 *
 * relay.c has voice and digits from leg to leg, play.c prompts, conference.c the mixing of three
 * legs, session.c how calls and legs are set up and closed, tap.c what detector and recorder get.
 *
 * Sans I/O: datagrams, their sources and the time come in as arguments; what is to be sent goes
 * to core->output. Who owns sockets and threads is engine.c. Everything here is called with the
 * core's mutex held.
 *
 * Only the caller's leg has a tap: tap_add() is called in one place, behind a test for it
 * (design principle 2).
 */
#ifndef CALLSHIELD_RELAY_H
#define CALLSHIELD_RELAY_H

#include <pthread.h>
#include <srtp2/srtp.h>
#include <stdatomic.h>

#include "digits.h"
#include "echo.h"
#include "ear.h"
#include "g711.h"
#include "latch.h"
#include "rtcp.h"
#include "rtp.h"
#include "voice.h"

enum leg_name { CALLER, AGENT, HELPER, LEGS };

enum {
    CALL_ID = 16,          /* bytes */
    MAX_SESSIONS = 4096,
    MAX_CLIPS = 8,         /* files of one prompt request */
    PACKET_ROOM = 2048,    /* a packet and what SRTP appends */
    TAP_LONGEST = 64 * 1024,
    TAP_RECORDS = 2048,    /* of one datagram */
    TAP_BACKLOG = 50,      /* datagrams kept for a slow detector: one second */
    RECORD_BLOCK = 256 * 1024,
    MAX_EVENTS = 65536,    /* for Python; more are dropped and counted */
};
#define TICK (10 * MS)
/* libsrtp reads headers as 32-bit words. */
#define PACKET_BUFFER(name) _Alignas(uint32_t) uint8_t name[PACKET_ROOM]

/* ------------------------------------------------------------------------------- prompts */

/* An encoded prompt, shared by all calls that play it. */
struct clip {
    atomic_int users;
    int codec;              /* CODEC_PCMU stands for both laws */
    size_t samples;         /* G.711 */
    uint8_t *law[2];        /* G.711: mu-law, A-law */
    uint32_t packet_ms;     /* others: a packet is always as long */
    size_t packets;
    uint32_t *offsets;      /* packets + 1 of them */
    uint8_t *data;
};
void clip_release(struct clip *);

enum play_end { PLAY_DONE, PLAY_STOPPED, PLAY_UNHEARD, PLAY_NO_ADDRESS, PLAY_WRONG_CODEC };

struct play {
    bool active, loop, mix;
    uint64_t id;
    int count, file;
    struct clip *clip[MAX_CLIPS];
    size_t offset;          /* sample (G.711) or packet */
    uint64_t frames, failed;
    ns_t due;               /* of the next packet */
    ns_t until;             /* the far end plays what it was sent until then */
    bool continues, alone;
    ns_t shift;             /* from monotonic to wall clock */
    int begun;              /* files */
    ns_t span[MAX_CLIPS][2]; /* seconds since the epoch in ns */
};

/* ---------------------------------------------------------------------------------- legs */

/* What a leg said lately, for mixing: 512 ms of 8 kHz samples by timestamp. */
enum { JITTER_SAMPLES = 4096, JITTER_DELAY = 400 }; /* a power of 2: timestamps wrap */
struct jitter_buffer {
    bool begun;
    uint32_t read;          /* timestamp of the next sample to be taken */
    int late;               /* packets in a row that came too late */
    int early;              /* packets in a row that lay far ahead */
    int16_t samples[JITTER_SAMPLES];
};

struct leg {
    bool open;
    enum leg_name name;
    int rtp_fd, rtcp_fd;
    struct latch latch;
    struct endpoint rtcp_to;
    int codec;              /* enum codec */
    int voice_type, event_type, noise_type; /* payload types; -1: none */
    uint32_t ptime_ms;
    /* in */
    struct receiver rx;
    struct event_receiver events;
    bool press_held;        /* the newest press goes nowhere, or waits in the gate */
    bool press_sent;        /* a packet of it went to the other leg */
    bool press_beside;      /* as packets of our own, beside a prompt or a conference */
    ns_t last_at;           /* of the newest accepted packet */
    uint64_t malformed, wrong_source, wrong_type, srtp_refused;
    struct rtcp rtcp;
    /* out */
    struct out_stream out;
    uint64_t reported_sent; /* out.sent at the last report */
    uint64_t unsent;        /* packets that the machine refused */
    struct play play;
    struct digit_sender digits;
    struct ear *ear;        /* NULL: nothing is limited on the way to this leg */
    bool protect;           /* ear is in use (G.711) */
    struct jitter_buffer *jitter; /* in a conference */
    /* SRTP; NULL: plain RTP */
    srtp_t srtp_in, srtp_out;
};

struct session {
    uint32_t handle;
    uint8_t id[CALL_ID];
    struct leg leg[LEGS];
    struct networks networks[2]; /* of the caller's side, of the phones' */
    struct digit_gate gate;
    bool caller_to_agent, agent_to_caller, tap, record, paused, conference;
    bool keys; /* the caller's digits are reported, whatever else becomes of them */
    bool tap_announced;
    struct echo echo;
    struct voice voice; /* of the agent's leg */
    uint64_t tapped, tap_dropped, recorded, record_dropped;
    bool ticking;
    ns_t conference_due;
    struct session *tick_next;
};

/* ---------------------------------------------------------------------------------- core */

enum event_kind { EVENT_PLAYED, EVENT_CODE, EVENT_UNDELIVERED, EVENT_KEY, EVENT_TAP_STARTED };
struct event {
    enum event_kind kind;
    uint32_t handle;
    enum leg_name leg;
    uint64_t play_id;
    enum play_end end;
    uint64_t frames, failed;
    int spans;
    ns_t span[MAX_CLIPS][2];
    int code;
    char digit;
};

struct tap_batch {
    size_t size;
    int records, audio;
    uint8_t *data;           /* TAP_LONGEST */
    uint32_t *owner;         /* session handle of each audio record: TAP_RECORDS */
};

struct record_block {
    struct record_block *next;
    size_t used;
    uint8_t data[RECORD_BLOCK];
};

struct core {
    pthread_mutex_t lock;
    struct session *session[MAX_SESSIONS];
    uint16_t generation[MAX_SESSIONS];
    int next_slot, sessions;
    struct session *ticking;
    struct codes codes;
    struct ear_profile ear;
    ns_t latch_window;
    ns_t tap_due, sweep_due;
    /* where packets go; 0 or an errno */
    int (*output)(struct core *, struct session *, struct leg *, bool rtcp, const uint8_t *packet,
                  size_t size, const struct endpoint *to);
    /* the tap: 1 sent, 0 nobody there, -1 full */
    int (*tap_send)(struct core *, const uint8_t *datagram, size_t size);
    struct tap_batch batch;
    struct tap_batch backlog[TAP_BACKLOG];
    int backlog_first, backlog_count;
    uint64_t tapped, tap_dropped;
    /* the recorder */
    struct record_block *record_first, *record_last;
    size_t record_bytes, record_limit;
    uint64_t record_dropped;
    /* events for Python */
    struct event *events;
    int event_count, event_room;
    uint64_t events_dropped;
    void (*wake)(struct core *);
    /* counters of calls that are over */
    uint64_t packets, past_packets, past_malformed, past_wrong_source;
    uint64_t late_ticks;
    void *engine;
};

bool core_init(struct core *);
void core_free(struct core *);

/* One datagram from the network, in a buffer of PACKET_ROOM. */
void relay_receive(struct core *, struct session *, struct leg *, uint8_t *packet, size_t size,
                   const struct endpoint *from, ns_t now);
void relay_receive_rtcp(struct core *, struct session *, struct leg *, uint8_t *packet, size_t size,
                        const struct endpoint *from, ns_t now, ns_t realtime);
/* To be called every TICK. */
void relay_tick(struct core *, ns_t now, ns_t realtime);

struct session *session_find(struct core *, uint32_t handle);
struct session *session_open(struct core *, const uint8_t id[CALL_ID]);
void session_close(struct core *, struct session *, ns_t now, ns_t realtime);

struct leg_update {
    struct endpoint sdp, rtcp, signalling;
    int codec, voice_type, event_type, noise_type;
    uint32_t ptime_ms;
    bool protect;
};
void leg_open(struct core *, struct session *, enum leg_name, int rtp_fd, int rtcp_fd, ns_t now);
void leg_close(struct core *, struct session *, enum leg_name, ns_t realtime);
void leg_negotiate(struct session *, struct leg *, const struct leg_update *, ns_t now);
/* The helper's leg becomes the agent's; that one must be closed. */
void leg_promote(struct core *, struct session *);
void session_allow(struct core *, struct session *, bool caller_to_agent, bool agent_to_caller,
                   bool tap, bool record, bool paused, bool conference, bool keys, ns_t now);
bool play_start(struct core *, struct session *, struct leg *, uint64_t id, struct clip **, int count,
                bool loop, bool mix, ns_t now);
bool play_stop(struct core *, struct session *, struct leg *, ns_t realtime);
/* A digit that came by INFO: it passes the same gate as an event. */
void leg_digit(struct core *, struct session *, struct leg *, char digit, ns_t now);
void session_wants_ticks(struct core *, struct session *);

/* tap.c */
void tap_add(struct core *, struct session *, int kind, int codec, bool echo, uint16_t sequence,
             uint32_t timestamp, const uint8_t *payload, size_t size, ns_t now);
void tap_flush(struct core *, ns_t now);
void record_add(struct core *, struct session *, int channel, int codec, uint32_t timestamp,
                const uint8_t *payload, size_t size, ns_t realtime);
void event_add(struct core *, const struct event *);

#endif
