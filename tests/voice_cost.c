/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * CPU time of one packet of the agent's in the relay, without the kernel's part. Compiled twice by
 * voice_cost.py: as it is, and with -DWITHOUT_VOICE instead of voice.c.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "relay.h"

enum { PACKETS = 300000, ROUNDS = 7, VOICES = 64, SAMPLES = 160 };

#ifdef WITHOUT_VOICE
void voice_heard(struct voice *v, int level, int64_t now) { (void)v, (void)level, (void)now; }
#endif

static int no_output(struct core *c, struct session *s, struct leg *l, bool rtcp, const uint8_t *p,
                     size_t size, const struct endpoint *to) {
    (void)c, (void)s, (void)l, (void)rtcp, (void)p, (void)size, (void)to;
    return 0;
}

static int no_tap(struct core *c, const uint8_t *d, size_t size) {
    (void)c, (void)d, (void)size;
    return 1;
}

static void at(struct endpoint *e, const char *host, uint16_t port) {
    memset(e, 0, sizeof *e);
    inet_pton(AF_INET, host, &e->at.four.sin_addr);
    e->at.four.sin_family = AF_INET;
    e->size = sizeof e->at.four;
    endpoint_set_port(e, port);
}

int main(void) {
    struct core *core = calloc(1, sizeof *core);
    if (!core || !core_init(core)) return 1;
    pthread_mutex_init(&core->lock, NULL);
    ear_profile_default(&core->ear);
    core->output = no_output;
    core->tap_send = no_tap;
    core->latch_window = 5 * SECOND;
    const uint8_t id[CALL_ID] = {1};
    struct session *s = session_open(core, id);
    ns_t now = 1000 * SECOND;
    struct endpoint from[2];
    at(&from[0], "192.0.2.10", 4000);
    at(&from[1], "192.0.2.20", 5000);
    for (int i = 0; i < 2; i++) {
        leg_open(core, s, (enum leg_name)i, -1, -1, now);
        struct leg_update u = {.sdp = from[i], .rtcp = from[i], .codec = CODEC_PCMU,
                               .event_type = 101, .noise_type = -1, .ptime_ms = 20,
                               .protect = i == AGENT};
        leg_negotiate(s, &s->leg[i], &u, now);
    }
    session_allow(core, s, true, true, true, false, false, false, false, now);
    uint8_t voices[VOICES][SAMPLES];
    srand(1);
    for (int i = 0; i < VOICES; i++)
        for (int k = 0; k < SAMPLES; k++) voices[i][k] = (uint8_t)rand();
    uint32_t number = 0;
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        struct timespec begin, end;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
        for (int i = 0; i < PACKETS; i++) {
            PACKET_BUFFER(packet);
            uint32_t timestamp = ++number * SAMPLES;
            const uint8_t header[RTP_HEADER] = {
                0x80, 0, (uint8_t)(number >> 8), (uint8_t)number, (uint8_t)(timestamp >> 24),
                (uint8_t)(timestamp >> 16), (uint8_t)(timestamp >> 8), (uint8_t)timestamp, 0, 0, 0, 7};
            memcpy(packet, header, sizeof header);
            memcpy(packet + RTP_HEADER, voices[number % VOICES], SAMPLES);
            now += 20 * MS;
            relay_receive(core, s, &s->leg[AGENT], packet, RTP_HEADER + SAMPLES, &from[AGENT], now);
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        double ns = ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / PACKETS;
        if (ns < best) best = ns;
    }
    printf("%.1f\n", best);
    session_close(core, s, now, 0);
    core_free(core);
    free(core);
    return 0;
}
