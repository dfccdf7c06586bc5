/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * RTCP of one leg (RFC 3550 section 6): our own sender and receiver reports, and what the far
 * end's say about us.
 */
#ifndef CALLSHIELD_RTCP_H
#define CALLSHIELD_RTCP_H

#include "rtp.h"

enum { RTCP_LONGEST = 128 };
#define RTCP_INTERVAL (5 * SECOND)

struct rtcp {
    char cname[17];          /* random (RFC 7022) */
    ns_t due;
    uint32_t last_sr;        /* middle 32 bits of the far end's newest NTP time stamp */
    uint32_t sr_ssrc;        /* that sent it */
    ns_t last_sr_at;
    bool sr_seen;
    uint64_t reports;        /* that the far end sent */
    uint64_t malformed;
    bool told;               /* a report about our stream came */
    uint8_t fraction_lost;   /* of it, in 256ths */
    int32_t total_lost;
    uint32_t jitter;         /* clock units */
    double rtt_ms;           /* -1: unknown */
};

/* realtime: of now, nanoseconds since the epoch. Returns the packet's size. */
size_t rtcp_write(struct rtcp *, struct receiver *, const struct out_stream *, bool sent_lately,
                  uint8_t packet[RTCP_LONGEST], ns_t now, ns_t realtime);
/* Take a compound packet; false when it is malformed. */
bool rtcp_read(struct rtcp *, const uint8_t *packet, size_t size, uint32_t our_ssrc, ns_t now,
               ns_t realtime);

#endif
