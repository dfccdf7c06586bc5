/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "latch.h"

bool network_holds(const struct networks *networks, const struct endpoint *source) {
    const uint8_t *address = source->at.any.sa_family == AF_INET
                                 ? (const uint8_t *)&source->at.four.sin_addr
                                 : (const uint8_t *)&source->at.six.sin6_addr;
    for (int i = 0; i < networks->count; i++) {
        const struct network *n = &networks->list[i];
        if (n->family != source->at.any.sa_family) continue;
        int whole = n->bits / 8, rest = n->bits % 8;
        if (memcmp(address, n->address, (size_t)whole) != 0) continue;
        if (!rest || (address[whole] ^ n->address[whole]) >> (8 - rest) == 0) return true;
    }
    return false;
}

void latch_arm(struct latch *l, const struct endpoint *sdp, const struct endpoint *signalling,
               ns_t now) {
    bool same = endpoint_known(sdp) ? same_endpoint(sdp, &l->sdp) : !endpoint_known(&l->sdp);
    if (!same) {
        l->source.size = 0;
        l->rank = RANK_NOBODY;
    }
    l->sdp = *sdp;
    l->destination = endpoint_known(&l->source) ? l->source : *sdp;
    l->signalling = *signalling;
    l->confirmed = false;
    l->deadline = now + l->window;
}

static enum rank rank_of(const struct latch *l, const struct endpoint *source) {
    if (same_endpoint(source, &l->sdp)) return RANK_SDP;
    if (same_host(source, &l->signalling)) return RANK_SIGNALLING;
    return network_holds(l->networks, source) ? RANK_NETWORK : RANK_NOBODY;
}

static bool admits(const struct latch *l, enum rank rank, ns_t now) {
    if (rank == RANK_NOBODY) return false;
    return rank == RANK_SDP || (now <= l->deadline && !(l->confirmed && rank <= l->rank));
}

bool latch_would_accept(const struct latch *l, const struct endpoint *source, ns_t now) {
    if (endpoint_known(&l->source) && same_endpoint(source, &l->source)) return true;
    /* No SDP, no media: before an answer nobody may latch. */
    return endpoint_known(&l->sdp) && admits(l, rank_of(l, source), now);
}

bool latch_accept(struct latch *l, const struct endpoint *source, ns_t now) {
    if (endpoint_known(&l->source) && same_endpoint(source, &l->source)) {
        l->confirmed = true;
        return true;
    }
    if (!endpoint_known(&l->sdp)) return false;
    enum rank rank = rank_of(l, source);
    if (!admits(l, rank, now)) return false;
    l->source = l->destination = *source;
    l->rank = rank;
    l->confirmed = true;
    return true;
}
