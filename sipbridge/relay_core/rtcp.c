/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "rtcp.h"

#include <string.h>

enum { SR = 200, RR = 201, SDES = 202, FIRST = 200, LAST = 207 };

/* NTP time (RFC 3550 section 4): seconds since 1900 and 2^-32 of one. */
static uint64_t ntp(ns_t realtime) {
    uint64_t seconds = (uint64_t)(realtime / SECOND) + 2208988800u;
    uint64_t fraction = ((uint64_t)(realtime % SECOND) << 32) / (uint64_t)SECOND;
    return seconds << 32 | fraction;
}

static uint32_t middle(uint64_t ntp_time) { return (uint32_t)(ntp_time >> 16); }

static size_t write_block(struct rtcp *c, struct receiver *r, uint8_t *at, ns_t now) {
    /* Of the source that the block names; those before it have no block any more. */
    uint64_t expected = receiver_expected_now(r), received = r->received;
    bool sr_seen = c->sr_seen && c->sr_ssrc == r->ssrc;
    uint64_t since_expected = expected - r->expected_prior;
    int64_t since_lost = (int64_t)since_expected - (int64_t)(received - r->received_prior);
    r->expected_prior = expected;
    r->received_prior = received;
    uint64_t fraction = since_expected && since_lost > 0
                            ? (uint64_t)since_lost * 256 / since_expected
                            : 0;
    if (fraction > 255) fraction = 255;
    int64_t lost = (int64_t)expected - (int64_t)received;
    if (lost > 0x7FFFFF) lost = 0x7FFFFF;
    if (lost < 0) lost = 0;
    put32(at, r->ssrc);
    put32(at + 4, (uint32_t)fraction << 24 | (uint32_t)lost);
    put32(at + 8, r->cycles + r->newest);
    put32(at + 12, r->jitter >> 4);
    put32(at + 16, sr_seen ? c->last_sr : 0);
    put32(at + 20, sr_seen ? (uint32_t)((now - c->last_sr_at) * 65536 / SECOND) : 0);
    return 24;
}

size_t rtcp_write(struct rtcp *c, struct receiver *r, const struct out_stream *out,
                  bool sent_lately, uint8_t packet[RTCP_LONGEST], ns_t now, ns_t realtime) {
    size_t size = 8;
    put32(packet + 4, out->ssrc);
    if (sent_lately) {
        uint64_t time = ntp(realtime);
        put32(packet + 8, (uint32_t)(time >> 32));
        put32(packet + 12, (uint32_t)time);
        ns_t gone = now - out->at;
        put32(packet + 16, stream_newest_timestamp(out) +
                               (uint32_t)(gone / MS * out->clock / 1000));
        put32(packet + 20, (uint32_t)out->sent);
        put32(packet + 24, (uint32_t)out->octets);
        size = 28;
    }
    if (r->begun) size += write_block(c, r, packet + size, now);
    packet[0] = (uint8_t)(0x80 | (r->begun ? 1 : 0));
    packet[1] = sent_lately ? SR : RR;
    put16(packet + 2, (uint16_t)(size / 4 - 1));
    /* SDES with one CNAME item, padded to 32 bits (section 6.5). */
    uint8_t *sdes = packet + size;
    size_t name = strlen(c->cname);
    size_t chunk = (4 + 2 + name + 4) / 4 * 4; /* at least one byte ends the list of items */
    memset(sdes, 0, 4 + chunk);
    sdes[0] = 0x81;
    sdes[1] = SDES;
    put16(sdes + 2, (uint16_t)(chunk / 4));
    put32(sdes + 4, out->ssrc);
    sdes[8] = 1;
    sdes[9] = (uint8_t)name;
    memcpy(sdes + 10, c->cname, name);
    return size + 4 + chunk;
}

static void read_block(struct rtcp *c, const uint8_t *block, ns_t realtime) {
    c->told = true;
    c->fraction_lost = block[4];
    int32_t lost = (int32_t)(get32(block + 4) << 8) >> 8;
    c->total_lost = lost;
    c->jitter = get32(block + 12);
    uint32_t last_sr = get32(block + 16), delay = get32(block + 20);
    if (last_sr == 0) return;
    uint32_t trip = middle(ntp(realtime)) - last_sr - delay; /* section 6.4.1 */
    /* Negative, or over ten seconds: the far end's arithmetic, not a path. */
    if (trip < 10 * 65536) c->rtt_ms = trip * 1000.0 / 65536;
}

bool rtcp_read(struct rtcp *c, const uint8_t *packet, size_t size, uint32_t our_ssrc, ns_t now,
               ns_t realtime) {
    /* Check the whole compound first (appendix A.2): half a lie is a lie. */
    if (size < 8 || size % 4 || (packet[1] != SR && packet[1] != RR) || packet[0] & 0x20) goto bad;
    for (size_t at = 0; at < size;) {
        if (size - at < 4) goto bad;
        size_t length = 4 * ((size_t)get16(packet + at + 2) + 1);
        uint8_t kind = packet[at + 1];
        if (packet[at] >> 6 != 2 || kind < FIRST || kind > LAST || length > size - at) goto bad;
        size_t blocks = packet[at] & 0x1F;
        if (kind == SR && length < 28 + 24 * blocks) goto bad;
        if (kind == RR && length < 8 + 24 * blocks) goto bad;
        at += length;
    }
    for (size_t at = 0; at < size; at += 4 * ((size_t)get16(packet + at + 2) + 1)) {
        const uint8_t *p = packet + at;
        if (p[1] != SR && p[1] != RR) continue;
        if (p[1] == SR) {
            c->last_sr = get32(p + 8) << 16 | get32(p + 12) >> 16;
            c->sr_ssrc = get32(p + 4);
            c->last_sr_at = now;
            c->sr_seen = true;
        }
        const uint8_t *block = p + (p[1] == SR ? 28 : 8);
        for (int i = 0; i < (p[0] & 0x1F); i++, block += 24) {
            if (get32(block) == our_ssrc) read_block(c, block, realtime);
        }
    }
    c->reports++;
    return true;
bad:
    c->malformed++;
    return false;
}
