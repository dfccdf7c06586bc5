/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Whose media a leg takes, and where it sends its own: the rules against RTP injection.
 *
 * A leg takes media from the address and port in the far end's SDP. A phone behind NAT sends from
 * another one; that one is taken only for a few seconds after the SDP came, and only when its
 * address is that of the leg's signalling or lies in a network that the administrator named. The
 * first valid packet from there latches: media goes back to it (RFC 4961, symmetric RTP) and
 * nobody else is heard any more. Unlike "learn from whoever sends first" (RTPbleed,
 * CVE-2017-14099 and others) a stranger who sprays packets never wins.
 *
 * Three ranks settle who may displace whom: the SDP's own address, then the signalling address,
 * then the configured networks. The SDP's address may always take its leg back; a signalling
 * address displaces a network only while the window is open.
 */
#ifndef CALLSHIELD_LATCH_H
#define CALLSHIELD_LATCH_H

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "rtp.h"

struct endpoint {
    socklen_t size; /* of the address; 0: none */
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } at;
};

static inline bool endpoint_known(const struct endpoint *e) { return e->size != 0; }

static inline bool same_host(const struct endpoint *a, const struct endpoint *b) {
    if (!a->size || !b->size || a->at.any.sa_family != b->at.any.sa_family) return false;
    if (a->at.any.sa_family == AF_INET)
        return a->at.four.sin_addr.s_addr == b->at.four.sin_addr.s_addr;
    return memcmp(&a->at.six.sin6_addr, &b->at.six.sin6_addr, 16) == 0;
}

/* The port lies at the same place in both families. */
static inline uint16_t endpoint_port(const struct endpoint *e) { return ntohs(e->at.four.sin_port); }
static inline void endpoint_set_port(struct endpoint *e, uint16_t port) {
    e->at.four.sin_port = htons(port);
}

static inline bool same_endpoint(const struct endpoint *a, const struct endpoint *b) {
    return a->at.four.sin_port == b->at.four.sin_port && same_host(a, b);
}

struct network {
    uint8_t family; /* AF_INET or AF_INET6 */
    uint8_t bits;
    uint8_t address[16];
};

enum { MAX_NETWORKS = 64 };
struct networks {
    int count;
    struct network list[MAX_NETWORKS];
};

bool network_holds(const struct networks *, const struct endpoint *);

enum rank { RANK_NOBODY, RANK_NETWORK, RANK_SIGNALLING, RANK_SDP };

struct latch {
    const struct networks *networks;
    ns_t window;
    ns_t deadline;
    enum rank rank;
    bool confirmed;
    struct endpoint sdp, signalling;
    struct endpoint source;      /* that has latched */
    struct endpoint destination; /* the latched source; the SDP's address before */
};

/* A new SDP came: the window opens again. When its address is the same as before (a session
 * refresh), media goes on to the latched source until another one shows itself: a muted phone
 * behind NAT stays reachable. An unknown sdp: the far end takes no media. */
void latch_arm(struct latch *, const struct endpoint *sdp, const struct endpoint *signalling,
               ns_t now);

/* Whether a valid packet with the right payload type may come from here; latches it. */
bool latch_accept(struct latch *, const struct endpoint *source, ns_t now);

/* Whether latch_accept() would say yes; changes nothing. */
bool latch_would_accept(const struct latch *, const struct endpoint *source, ns_t now);

static inline bool latch_settled(const struct latch *l, const struct endpoint *source) {
    return l->confirmed && same_endpoint(&l->source, source);
}

#endif
