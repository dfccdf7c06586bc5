/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The relay's thread under traffic while others set calls up, read figures and close calls: what
 * module.c does, without Python, so that ThreadSanitizer and the leak checker see everything.
 * tests/sanitize.sh compiles and runs it. With -DWITHOUT_LOCK the control side forgets the core's
 * lock, with -DFORGETFUL one prompt is never given back: ThreadSanitizer and the leak checker must
 * then complain, or they would not have looked.
 *
 * Usage: core_threads TAP_PATH SECONDS
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

enum { CALLS = 16, SOCKETS = 2 * LEGS };

#ifdef WITHOUT_LOCK
#define LOCK(core) ((void)(core))
#define UNLOCK(core) ((void)(core))
#else
#define LOCK(core) pthread_mutex_lock(&(core)->lock)
#define UNLOCK(core) pthread_mutex_unlock(&(core)->lock)
#endif

struct far_end {
    int ours[SOCKETS];  /* RTP and RTCP of each leg, served by the engine */
    int theirs[SOCKETS];
    struct sockaddr_in our_address[SOCKETS], their_address[SOCKETS];
};

static struct core core;
static struct engine *engine;
static struct far_end far[CALLS];
static struct clip *prompt;
static int detector;
static atomic_bool over;
static atomic_ulong sent, received, opened, recorded_bytes, events_seen,
    tapped;

static ns_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (ns_t)t.tv_sec * SECOND + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static int bound(struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof *address;
    if (fd < 0 || bind(fd, (struct sockaddr *)address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)address, &size) != 0)
        fail("a socket on 127.0.0.1");
    return fd;
}

static srtp_t secret(srtp_ssrc_type_t direction) {
    static unsigned char key[30] = "a key of the test, 30 bytes";
    srtp_policy_t policy = {.key = key, .window_size = 512, .ssrc.type = direction};
    srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy.rtp);
    policy.rtcp = policy.rtp;
    srtp_t made = NULL;
    if (srtp_create(&made, &policy) != srtp_err_status_ok) fail("srtp_create");
    return made;
}

/* ------------------------------------------------------------------------------ the far ends */

static void *traffic(void *unused) {
    (void)unused;
    uint8_t packet[RTP_HEADER + 160] = {RTP_PLAIN}, heard[PACKET_ROOM];
    for (uint16_t sequence = 1; !over; sequence++) {
        for (int call = 0; call < CALLS && !over; call++) {
            for (int i = 0; i < SOCKETS; i++) {
                struct far_end *f = &far[call];
                bool rtcp = i & 1, event = sequence % 7 == 0;
                size_t size = event ? RTP_HEADER + EVENT_BYTES : sizeof packet;
                packet[1] = event ? 101 : 0;
                put16(packet + 2, sequence);
                put32(packet + 4, 160u * sequence);
                put32(packet + 8, (uint32_t)(100 + i));
                if (event) memcpy(packet + 12, sequence % 2 ? "\x0a\x8a\x03\x20" : "\x05\x8a\x03\x20", 4);
                if (rtcp) {
                    packet[1] = 201; /* a receiver report without blocks */
                    put16(packet + 2, 1);
                    size = 8;
                }
                if (sequence % 31 == 0) packet[0] ^= (uint8_t)(sequence / 31);
                sent += sendto(f->theirs[i], packet, size, 0, (void *)&f->our_address[i],
                               sizeof f->our_address[i]) > 0;
                packet[0] = RTP_PLAIN;
                while (recv(f->theirs[i], heard, sizeof heard, 0) > 0) received++;
            }
        }
        static uint8_t batch[TAP_LONGEST];
        while (recv(detector, batch, sizeof batch, 0) > 0) tapped++;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

/* --------------------------------------------------------------------- what Python would read */

static void *reader(void *unused) {
    (void)unused;
    while (!over) {
        LOCK(&core);
        struct record_block *first = core.record_first;
        recorded_bytes += core.record_bytes;
        core.record_first = core.record_last = NULL;
        core.record_bytes = 0;
        struct event *events = core.events;
        events_seen += (unsigned long)core.event_count;
        core.events = NULL;
        core.event_count = core.event_room = 0;
        engine_calm(engine);
        uint64_t figures = core.packets + core.tapped + core.late_ticks;
        for (int slot = 0; slot < MAX_SESSIONS; slot++) {
            const struct session *s = core.session[slot];
            if (!s) continue;
            for (int i = 0; i < LEGS; i++) {
                figures += receiver_received(&s->leg[i].rx) + (uint64_t)s->leg[i].last_at +
                           s->leg[i].out.sent + s->leg[i].rtcp.reports;
            }
        }
        UNLOCK(&core);
        (void)figures;
        while (first) {
            struct record_block *next = first->next;
            free(first);
            first = next;
        }
        free(events);
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
    return NULL;
}

/* ------------------------------------------------------------------------ what Python would do */

static void open_leg(struct session *s, int call, enum leg_name name, bool secure) {
    struct far_end *f = &far[call];
    leg_open(&core, s, name, f->ours[2 * name], f->ours[2 * name + 1], clock_ns(CLOCK_MONOTONIC));
    struct leg *leg = &s->leg[name];
    if (engine_watch(engine, s, leg, false)) fail("epoll");
    struct leg_update update = {.codec = CODEC_PCMU, .voice_type = 0, .event_type = 101,
                                .noise_type = 13, .ptime_ms = 20, .protect = name != CALLER};
    update.sdp.size = update.rtcp.size = sizeof f->their_address[0];
    update.sdp.at.four = f->their_address[2 * name];
    update.rtcp.at.four = f->their_address[2 * name + 1];
    leg_negotiate(s, leg, &update, clock_ns(CLOCK_MONOTONIC));
    if (secure) {
        leg->srtp_in = secret(ssrc_any_inbound);
        leg->srtp_out = secret(ssrc_any_outbound);
    }
}

static void shut_leg(struct session *s, enum leg_name name) {
    if (!s->leg[name].open) return;
    engine_unwatch(engine, &s->leg[name]);
    leg_close(&core, s, name, clock_ns(CLOCK_REALTIME));
}

static void *control(void *unused) {
    (void)unused;
    uint32_t handle[CALLS] = {0};
    for (unsigned round = 0; !over; round++) {
        int call = (int)(round % CALLS);
        unsigned step = round / CALLS % 9;
        ns_t now = clock_ns(CLOCK_MONOTONIC);
        LOCK(&core);
        struct session *s = session_find(&core, handle[call]);
        if (!handle[call] || !s) {
            uint8_t id[CALL_ID] = {(uint8_t)call};
            s = session_open(&core, id);
            handle[call] = s->handle;
            opened++;
            for (int name = 0; name < LEGS; name++) {
                open_leg(s, call, (enum leg_name)name, call % 4 == 3 && name == HELPER);
            }
            session_allow(&core, s, true, true, true, true, false, false, call % 2, now);
        } else if (step == 1) {
            play_start(&core, s, &s->leg[call % LEGS], round, &prompt, 1, round % 2, call % 3 == 0, now);
        } else if (step == 2) {
            leg_digit(&core, s, &s->leg[AGENT], "*5"[round % 2], now);
        } else if (step == 3) {
            session_allow(&core, s, true, true, true, true, false, true, false, now);
        } else if (step == 4) {
            session_allow(&core, s, true, true, true, true, true, call % 2, true, now);
        } else if (step == 5 && s->leg[AGENT].ear) {
            double sum;
            uint64_t samples;
            ear_set(s->leg[AGENT].ear, round % 2, round % 3 == 0);
            ear_take_dose(s->leg[AGENT].ear, &sum, &samples);
            play_stop(&core, s, &s->leg[call % LEGS], clock_ns(CLOCK_REALTIME));
        } else if (step == 6 && s->leg[HELPER].open) {
            shut_leg(s, AGENT);
            leg_promote(&core, s);
            if (engine_watch(engine, s, &s->leg[AGENT], true)) fail("epoll after promotion");
        } else if (step == 8) {
            for (int name = 0; name < LEGS; name++) {
                if (s->leg[name].open) engine_unwatch(engine, &s->leg[name]);
            }
            session_close(&core, s, now, clock_ns(CLOCK_REALTIME));
            handle[call] = 0;
        }
        UNLOCK(&core);
        nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: core_threads TAP_PATH SECONDS\n");
        return 2;
    }
    if (srtp_init() != srtp_err_status_ok || !core_init(&core)) fail("set-up");
    pthread_mutex_init(&core.lock, NULL);
    core.latch_window = 5 * SECOND;
    ear_profile_default(&core.ear);
    core.codes = (struct codes){.count = 2, .code = {"**9", "*12"}};
    prompt = calloc(1, sizeof *prompt);
    atomic_init(&prompt->users, 1);
    prompt->codec = CODEC_PCMU;
    prompt->samples = 4000;
    for (int i = 0; i < 2; i++) prompt->law[i] = calloc(1, prompt->samples);
    for (int call = 0; call < CALLS; call++) {
        for (int i = 0; i < SOCKETS; i++) {
            far[call].ours[i] = bound(&far[call].our_address[i]);
            far[call].theirs[i] = bound(&far[call].their_address[i]);
        }
    }
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    strncpy(path.sun_path, arguments[1], sizeof path.sun_path - 1);
    detector = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(detector, (struct sockaddr *)&path, sizeof path) != 0) fail(arguments[1]);
    engine = engine_new(&core, arguments[1]);
    if (!engine || engine_start(engine, 0)) fail("engine");
    pthread_t threads[3];
    void *(*bodies[])(void *) = {traffic, reader, control};
    for (int i = 0; i < 3; i++) {
        if (pthread_create(&threads[i], NULL, bodies[i], NULL)) fail("pthread_create");
    }
    struct timespec time = {.tv_sec = atol(arguments[2])};
    nanosleep(&time, NULL);
    over = true;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    engine_stop(engine);
    engine_free(engine);
    core.wake = NULL;
    core_free(&core);
#ifndef FORGETFUL
    clip_release(prompt);
#endif
    prompt = NULL;
    pthread_mutex_destroy(&core.lock);
    for (int call = 0; call < CALLS; call++) {
        for (int i = 0; i < SOCKETS; i++) {
            close(far[call].ours[i]);
            close(far[call].theirs[i]);
        }
    }
    close(detector);
    srtp_shutdown();
    printf("%lu calls, %lu packets in, %lu out, %lu batches tapped, %lu bytes recorded, %lu events\n",
           (unsigned long)opened, (unsigned long)sent, (unsigned long)received,
           (unsigned long)tapped, (unsigned long)recorded_bytes, (unsigned long)events_seen);
    /* Nothing happened: nothing was tested. */
    return opened && received && tapped && recorded_bytes && events_seen ? 0 : 3;
}
