/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pjsip_guard: a small PJSIP module that decides, before any transaction, dialog or Python object
 * exists, whether a SIP request is worth the trouble.
 *
 * Why in C, why here. Stock pjsua2 shows Python an INVITE only after PJSIP has built a transaction,
 * a dialog and a call for it; refusing a flood there costs a large part of a core and memory that
 * is given back half a minute later (RFC 3261 17.2.1, timer H). This module sits at priority
 * PJSIP_MOD_PRIORITY_TSX_LAYER - 1, below the transaction layer, and answers statelessly
 * (RFC 3261 8.2.7) or not at all.
 *
 * What happens to a request, in this order:
 *   1. Source filter. A source outside the allowed networks is refused. It gets a 403 at most ten
 *      times per second over all such sources, silence otherwise, so that we are neither a
 *      reflector nor an amplifier. ACK never gets an answer (RFC 3261 17: no response to an ACK).
 *      One whose Via says TLS but that came without is answered 400: it would have keys agreed on
 *      in the clear.
 *   2. Rate limit. A token bucket per source address for requests outside dialogs; above it a 503
 *      with Retry-After (RFC 3261 21.5.4). OPTIONS has a bucket of its own, so that a burst of
 *      calls can't make the PBX's health check believe that this node is dead. What comes by TCP
 *      or TLS has its own too: who forges the PBX's address over UDP must not use up the share of
 *      its connection. A retransmission of
 *      a request whose transaction exists is not a new request (RFC 3261 17.2.3) and passes.
 *   3. OPTIONS outside dialogs (RFC 3261 11.2): 200 when ready, 503 with Retry-After when not.
 *   4. Methods that nobody here serves (SUBSCRIBE, MESSAGE, REGISTER, PUBLISH, any unknown one): 405
 *      with Allow (RFC 3261 8.2.1). pjsua would take a MESSAGE with 200, begin a subscription of
 *      its own to presence and send NOTIFYs wherever the Contact points, and leave others without
 *      an answer. A method that only lives inside dialogs gets 481 outside of them.
 *   5. BYE for a dialog that nobody knows (after a restart of the process, say): PJSIP answers 481
 *      (RFC 3261 12.2.2) as always, and a copy is kept for Python, which may have audio running
 *      for that call. (A dialog that pjsip_kept.c restored is known.)
 * Everything else goes on to PJSIP; what happens to some requests inside dialogs is in
 * pjsip_dialogs.c. A datagram shorter than its Content-Length goes no further, and where a message
 * would lead our own requests and answers is mended (pjsip_paths.c), of responses too. Connections
 * are bounded in pjsip_connections.c.
 *
 * Threads. PJSIP calls us from whichever thread pumps its events, without Python's GIL; Python
 * calls us with the GIL. All state shared between the two is under one plain pthread mutex, which
 * needs neither the GIL nor a PJLIB-registered thread, and which is never held while calling into
 * PJSIP or Python.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "pjsip_connections.h"
#include "pjsip_dialogs.h"
#include "pjsip_kept.h"
#include "pjsip_paths.h"
#include "pjsip_sdp.h"

#include <pjlib.h>
#include <pjsip.h>
#include <pjsip_ua.h>
#include <pjsua-lib/pjsua.h>

#include <openssl/crypto.h>
#include <srtp2/srtp.h>

#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* A refused source is told so at most this often, over all refused sources together. */
#define REFUSALS_PER_SECOND 10

/* Rate table: 1024 sets of 4, the least recently seen of a set makes room. A source that was
 * pushed out starts again with a full bucket, so more than 4096 busy allowed sources weaken the
 * limit instead of blocking anybody. */
#define RATE_SETS 1024
#define RATE_WAYS 4

/* Unknown BYEs waiting for Python; the oldest makes room. */
#define BYE_RING 256

typedef struct {
    uint8_t octets[16]; /* IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2) */
    int is_v4;
} address_t;

typedef struct {
    address_t base;
    int bits; /* of 128; IPv4 prefixes have 96 added */
} network_t;

typedef struct {
    network_t *items;
    Py_ssize_t count;
} network_list_t;

typedef struct {
    double tokens;
    int64_t filled_ns;
} bucket_t;

/* Of each source: datagrams and connections apart, calls and OPTIONS apart. */
enum { BUCKET_CALLS = 0, BUCKET_OPTIONS = 1, BUCKET_CONNECTION = 2, BUCKETS = 4 };

typedef struct {
    uint8_t octets[16];
    int64_t seen_ns; /* 0: free */
    bucket_t bucket[BUCKETS];
} rate_entry_t;

typedef struct {
    char *data;
    size_t length;
} bye_t;

typedef struct {
    uint64_t received_requests;
    uint64_t refused_source;
    uint64_t refused_source_answered;
    uint64_t rate_limited;
    uint64_t options_ok;
    uint64_t options_unready;
    uint64_t refused_method;
    uint64_t false_tls;
    uint64_t unknown_byes;
    uint64_t unknown_byes_dropped;
    uint64_t malformed;
    uint64_t paths_mended;
} counters_t;

static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;

/* All of these are under g_lock. */
static network_list_t g_allowed;   /* may send anything */
static network_list_t g_in_dialog; /* may send requests inside dialogs only: the agents' phones */
static bucket_t g_refusals = {REFUSALS_PER_SECOND, 0};
static double g_rate_per_second; /* 0: no limit */
static double g_rate_burst;
static rate_entry_t g_rates[RATE_SETS][RATE_WAYS];
static uint64_t g_hash_seed;
static int g_ready;
static int g_retry_after_s = 10;
static bye_t g_byes[BYE_RING];
static unsigned g_bye_first, g_bye_count;
static counters_t g_counters;

/* Written by install() and by PJSIP's unload callback, both on the thread that owns the endpoint. */
static pjsip_endpoint *g_endpt;

static int64_t
monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* ---------------------------------------------------------------- addresses and networks */

static int
is_mapped_v4(const uint8_t octets[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(octets, mapped, sizeof mapped) == 0;
}

static int
address_from_sockaddr(const pj_sockaddr *sockaddr, address_t *out)
{
    memset(out, 0, sizeof *out);
    if (sockaddr->addr.sa_family == pj_AF_INET()) {
        out->octets[10] = out->octets[11] = 0xff;
        memcpy(out->octets + 12, &sockaddr->ipv4.sin_addr, 4);
    } else if (sockaddr->addr.sa_family == pj_AF_INET6()) {
        memcpy(out->octets, &sockaddr->ipv6.sin6_addr, 16);
    } else {
        return 0;
    }
    /* A dual-stack socket shows IPv4 peers as mapped addresses: one source, one form. */
    out->is_v4 = is_mapped_v4(out->octets);
    return 1;
}

static int
network_contains(const network_t *network, const address_t *address)
{
    if (network->base.is_v4 != address->is_v4) /* ::/0 is not a way to say 0.0.0.0/0 */
        return 0;
    int whole = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->base.octets, address->octets, (size_t)whole) != 0)
        return 0;
    if (rest == 0)
        return 1;
    uint8_t mask = (uint8_t)(0xff << (8 - rest));
    return ((network->base.octets[whole] ^ address->octets[whole]) & mask) == 0;
}

static int
list_contains(const network_list_t *list, const address_t *address)
{
    for (Py_ssize_t i = 0; i < list->count; i++)
        if (network_contains(&list->items[i], address))
            return 1;
    return 0;
}

int
guard_knows(const pj_sockaddr *sockaddr)
{
    address_t source;
    if (!address_from_sockaddr(sockaddr, &source))
        return 0;
    pthread_mutex_lock(&g_lock);
    const int known = list_contains(&g_allowed, &source) || list_contains(&g_in_dialog, &source);
    pthread_mutex_unlock(&g_lock);
    return known;
}

/* ---------------------------------------------------------------- rate limit */

/* Takes one token. Returns 0 if there was one, else the whole seconds until there will be. */
static int
bucket_take(bucket_t *bucket, double per_second, double burst, int64_t now_ns)
{
    bucket->tokens += (double)(now_ns - bucket->filled_ns) * 1e-9 * per_second;
    if (bucket->tokens > burst)
        bucket->tokens = burst;
    bucket->filled_ns = now_ns;
    if (bucket->tokens >= 1.0) {
        bucket->tokens -= 1.0;
        return 0;
    }
    double wait_s = ceil((1.0 - bucket->tokens) / per_second);
    return wait_s < 1.0 ? 1 : wait_s > 3600.0 ? 3600 : (int)wait_s;
}

static rate_entry_t *
rate_entry(const address_t *source, int64_t now_ns)
{
    uint64_t hash = g_hash_seed; /* FNV-1a; seeded, so that nobody can aim at one set */
    for (int i = 0; i < 16; i++)
        hash = (hash ^ source->octets[i]) * 1099511628211u;
    rate_entry_t *set = g_rates[(hash ^ (hash >> 32)) % RATE_SETS];
    rate_entry_t *oldest = &set[0];
    for (int i = 0; i < RATE_WAYS; i++) {
        if (set[i].seen_ns && memcmp(set[i].octets, source->octets, 16) == 0) {
            set[i].seen_ns = now_ns;
            return &set[i];
        }
        if (set[i].seen_ns < oldest->seen_ns)
            oldest = &set[i];
    }
    memcpy(oldest->octets, source->octets, 16);
    oldest->seen_ns = now_ns;
    for (int i = 0; i < BUCKETS; i++)
        oldest->bucket[i] = (bucket_t){g_rate_burst, now_ns};
    return oldest;
}

/* ---------------------------------------------------------------- methods */

/* What somebody here answers; BYE and what follows only inside dialogs. */
static const char *const METHODS[] = {"INVITE", "ACK", "CANCEL", "OPTIONS", "BYE", "UPDATE",
                                      "PRACK", "INFO", "REFER", "NOTIFY"};
enum { BEGIN_DIALOGS = 4 };

/* Compared without case, as pjsua does: "subscribe" must not pass us either. */
static int
method_number(const pj_str_t *name)
{
    for (int i = 0; i < (int)PJ_ARRAY_SIZE(METHODS); i++)
        if (pj_stricmp2(name, METHODS[i]) == 0)
            return i;
    return -1;
}

/* The Allow of every message of ours (RFC 3261 20.5). PJSIP's modules each add to one list, from
 * which a dialog copies its own: what nobody serves is taken out of it. */
static void
prune_allow(pjsip_endpoint *endpt)
{
    /* const by its name only: the list is the endpoint's, which has no call to shorten it */
    pjsip_allow_hdr *allow =
        (pjsip_allow_hdr *)pjsip_endpt_get_capability(endpt, PJSIP_H_ALLOW, NULL);
    unsigned kept = 0;
    for (unsigned i = 0; allow != NULL && i < allow->count; i++)
        if (method_number(&allow->values[i]) >= 0)
            allow->values[kept++] = allow->values[i];
    if (allow != NULL)
        allow->count = kept;
}

/* ---------------------------------------------------------------- stateless answers */

/* Sends a stateless response. Unlike pjsip_endpt_respond_stateless() it never follows the Via's
 * maddr (RFC 3261 18.2.2): the answer goes to the address that the request came from, so a forged
 * Via can't point us at a third party. The port is the source port with rport (RFC 3581) or on a
 * connection, else the one in the Via's sent-by. */
static void
respond(pjsip_rx_data *rdata, int code, int retry_after_s, int with_capabilities)
{
    pjsip_tx_data *tdata;
    if (pjsip_endpt_create_response(g_endpt, rdata, code, NULL, &tdata) != PJ_SUCCESS)
        return;
    if (retry_after_s > 0)
        pjsip_msg_add_hdr(tdata->msg,
                          (pjsip_hdr *)pjsip_retry_after_hdr_create(tdata->pool, retry_after_s));
    if (code == PJSIP_SC_METHOD_NOT_ALLOWED || with_capabilities) {
        static const int kinds[] = {PJSIP_H_ALLOW, PJSIP_H_SUPPORTED};
        for (size_t i = 0; i < (with_capabilities ? PJ_ARRAY_SIZE(kinds) : 1); i++) {
            const pjsip_hdr *capability = pjsip_endpt_get_capability(g_endpt, kinds[i], NULL);
            if (capability != NULL)
                pjsip_msg_add_hdr(tdata->msg,
                                  (pjsip_hdr *)pjsip_hdr_clone(tdata->pool, capability));
        }
    }
    if (with_capabilities) {
        /* PJSIP's own list also names the bodies of presence and messages; an INVITE to us takes
         * a session description and nothing else. */
        pjsip_accept_hdr *accept = pjsip_accept_hdr_create(tdata->pool);
        accept->values[accept->count++] = pj_str("application/sdp");
        pjsip_msg_add_hdr(tdata->msg, (pjsip_hdr *)accept);
    }

    pjsip_transport *transport = rdata->tp_info.transport;
    pjsip_response_addr to;
    pj_bzero(&to, sizeof to);
    to.transport = transport;
    to.dst_host.type = (pjsip_transport_type_e)transport->key.type;
    to.dst_host.flag = transport->flag;
    pj_memcpy(&to.addr, &rdata->pkt_info.src_addr, rdata->pkt_info.src_addr_len);
    to.addr_len = rdata->pkt_info.src_addr_len;
    if (!PJSIP_TRANSPORT_IS_RELIABLE(transport) && rdata->msg_info.via->rport_param < 0) {
        int port = rdata->msg_info.via->sent_by.port;
        pj_sockaddr_set_port(&to.addr, (pj_uint16_t)(port > 0 && port < 65536 ? port : 5060));
    }
    if (pjsip_endpt_send_response(g_endpt, &to, tdata, NULL, NULL) != PJ_SUCCESS)
        pjsip_tx_data_dec_ref(tdata);
}

/* Does a transaction exist that this request belongs to, as a retransmission (RFC 3261 17.2.3)? */
static int
has_transaction(pjsip_rx_data *rdata)
{
    pj_str_t key;
    if (pjsip_tsx_create_key(rdata->tp_info.pool, &key, PJSIP_ROLE_UAS,
                             &rdata->msg_info.cseq->method, rdata) != PJ_SUCCESS)
        return 0;
    return pjsip_tsx_layer_find_tsx2(&key, PJ_FALSE) != NULL;
}

static void
keep_unknown_bye(const pjsip_rx_data *rdata)
{
    size_t length = rdata->msg_info.len > 0 ? (size_t)rdata->msg_info.len : 0;
    char *copy = malloc(length ? length : 1);
    pthread_mutex_lock(&g_lock);
    g_counters.unknown_byes++;
    if (copy == NULL) {
        g_counters.unknown_byes_dropped++;
    } else {
        memcpy(copy, rdata->msg_info.msg_buf, length);
        if (g_bye_count == BYE_RING) {
            free(g_byes[g_bye_first].data);
            g_bye_first = (g_bye_first + 1) % BYE_RING;
            g_bye_count--;
            g_counters.unknown_byes_dropped++;
        }
        g_byes[(g_bye_first + g_bye_count) % BYE_RING] = (bye_t){copy, length};
        g_bye_count++;
    }
    pthread_mutex_unlock(&g_lock);
}

/* ---------------------------------------------------------------- the module */

/* A datagram's body is as long as Content-Length says (RFC 3261 18.3): what is behind it is cut
 * off, and one that is shorter is refused. PJSIP takes all that came, whatever it says. */
static int
length_holds(pjsip_rx_data *rdata)
{
    const pjsip_clen_hdr *length = rdata->msg_info.clen;
    if (length == NULL || PJSIP_TRANSPORT_IS_RELIABLE(rdata->tp_info.transport))
        return 1;
    const char *start = rdata->msg_info.msg_buf, *end = start + rdata->msg_info.len;
    const char *body = end;
    for (const char *at = start; at + 1 < end; at++) {
        if (at[0] == '\n' && (at[1] == '\n' || (at[1] == '\r' && at + 2 < end && at[2] == '\n'))) {
            body = at + (at[1] == '\n' ? 2 : 3);
            break;
        }
    }
    if (length->len < 0 || length->len > end - body)
        return 0;
    rdata->msg_info.len = (int)(body - start) + length->len;
    pjsip_msg_body *parsed = rdata->msg_info.msg->body;
    if (parsed != NULL && parsed->len > (unsigned)length->len)
        parsed->len = (unsigned)length->len;
    if (length->len == 0)
        rdata->msg_info.msg->body = NULL;
    return 1;
}

static void
count_mended(int mended)
{
    pthread_mutex_lock(&g_lock);
    g_counters.paths_mended += (uint64_t)mended;
    pthread_mutex_unlock(&g_lock);
}

/* Responses of a length that holds are let through; where they would lead us is looked at. */
static pj_bool_t
on_rx_response(pjsip_rx_data *rdata)
{
    if (!length_holds(rdata)) {
        pthread_mutex_lock(&g_lock);
        g_counters.malformed++;
        pthread_mutex_unlock(&g_lock);
        return PJ_TRUE; /* discarded (RFC 3261 18.3) */
    }
    count_mended(paths_of_response(rdata, &guard_knows) + paths_of_description(rdata));
    return PJ_FALSE;
}

static pj_bool_t
refuse_method(pjsip_rx_data *rdata, int code)
{
    pthread_mutex_lock(&g_lock);
    g_counters.refused_method++;
    pthread_mutex_unlock(&g_lock);
    respond(rdata, code, 0, 0);
    return PJ_TRUE;
}

/* PJ_TRUE: this request is done with. PJ_FALSE: let the next module see it. */
static pj_bool_t
on_rx_request(pjsip_rx_data *rdata)
{
    if (g_endpt == NULL)
        return PJ_FALSE;
    const pjsip_method_e method = rdata->msg_info.msg->line.req.method.id;
    const int in_dialog = rdata->msg_info.to->tag.slen != 0;
    const int64_t now_ns = monotonic_ns();
    address_t source;
    const int known_family = address_from_sockaddr(&rdata->pkt_info.src_addr, &source);

    pthread_mutex_lock(&g_lock);
    g_counters.received_requests++;
    /* An ACK to a final answer of ours and a CANCEL belong to a request that passed already; an
     * ACK carries a To tag, a CANCEL only where its INVITE did (RFC 3261 9.1). */
    const int allowed = known_family && (list_contains(&g_allowed, &source) ||
                                         (in_dialog && list_contains(&g_in_dialog, &source)));
    if (!allowed) {
        g_counters.refused_source++;
        int answer = method != PJSIP_ACK_METHOD &&
                     bucket_take(&g_refusals, REFUSALS_PER_SECOND, REFUSALS_PER_SECOND, now_ns) == 0;
        if (answer)
            g_counters.refused_source_answered++;
        pthread_mutex_unlock(&g_lock);
        if (answer)
            respond(rdata, PJSIP_SC_FORBIDDEN, 0, 0);
        return PJ_TRUE;
    }
    const int limited = g_rate_per_second > 0.0;
    pthread_mutex_unlock(&g_lock);
    if (!length_holds(rdata)) {
        pthread_mutex_lock(&g_lock);
        g_counters.malformed++;
        pthread_mutex_unlock(&g_lock);
        if (method != PJSIP_ACK_METHOD)
            respond(rdata, PJSIP_SC_BAD_REQUEST, 0, 0);
        return PJ_TRUE;
    }
    count_mended(paths_of_request(rdata, &guard_knows) + paths_of_description(rdata));
    /* PJSIP would send every answer of a transaction to a Via's maddr, with its retransmissions and
     * after looking a host name up: ours go where the request came from, as respond()'s do. */
    rdata->msg_info.via->maddr_param.slen = 0;

    /* Whether keys may be agreed on is decided by the Via's transport (sipbridge.sip_message): one
     * that says TLS has to have come by it (RFC 3261 18.1.1). */
    if (pj_stricmp2(&rdata->msg_info.via->transport, "TLS") == 0 &&
        !PJSIP_TRANSPORT_IS_SECURE(rdata->tp_info.transport)) {
        pthread_mutex_lock(&g_lock);
        g_counters.false_tls++;
        pthread_mutex_unlock(&g_lock);
        if (method != PJSIP_ACK_METHOD)
            respond(rdata, PJSIP_SC_BAD_REQUEST, 0, 0);
        return PJ_TRUE;
    }
    if (method == PJSIP_ACK_METHOD) {
        /* The To tag of a stateless answer is the request's own branch (PJSIP makes it so that
         * all answers to one request agree): such an ACK has nobody waiting for it. */
        if (in_dialog &&
            pj_strcmp(&rdata->msg_info.to->tag, &rdata->msg_info.via->branch_param) == 0 &&
            !has_transaction(rdata))
            return PJ_TRUE;
        return PJ_FALSE;
    }
    const int number = method_number(&rdata->msg_info.msg->line.req.method.name);
    if (in_dialog) {
        if (number < 0)
            return refuse_method(rdata, PJSIP_SC_METHOD_NOT_ALLOWED);
        if (method == PJSIP_BYE_METHOD && !has_transaction(rdata) &&
            pjsip_ua_find_dialog(&rdata->msg_info.cid->id, &rdata->msg_info.to->tag,
                                 &rdata->msg_info.from->tag, PJ_FALSE) == NULL)
            keep_unknown_bye(rdata);
        return PJ_FALSE;
    }
    if (method == PJSIP_CANCEL_METHOD) /* belongs to a transaction, or gets PJSIP's 481 */
        return PJ_FALSE;

    const int is_options = method == PJSIP_OPTIONS_METHOD;
    const int kind = (is_options ? BUCKET_OPTIONS : BUCKET_CALLS) +
                     (PJSIP_TRANSPORT_IS_RELIABLE(rdata->tp_info.transport) ? BUCKET_CONNECTION : 0);
    if (limited && !has_transaction(rdata)) {
        pthread_mutex_lock(&g_lock);
        rate_entry_t *entry = rate_entry(&source, now_ns);
        int wait_s = 0;
        if (g_rate_per_second > 0.0) /* may have been switched off meanwhile */
            wait_s = bucket_take(&entry->bucket[kind], g_rate_per_second, g_rate_burst, now_ns);
        if (wait_s)
            g_counters.rate_limited++;
        pthread_mutex_unlock(&g_lock);
        if (wait_s) {
            respond(rdata, PJSIP_SC_SERVICE_UNAVAILABLE, wait_s, 0);
            return PJ_TRUE;
        }
    }
    if (is_options) {
        pthread_mutex_lock(&g_lock);
        const int ready = g_ready, retry_after_s = g_retry_after_s;
        if (ready)
            g_counters.options_ok++;
        else
            g_counters.options_unready++;
        pthread_mutex_unlock(&g_lock);
        if (ready)
            respond(rdata, PJSIP_SC_OK, 0, 1);
        else
            respond(rdata, PJSIP_SC_SERVICE_UNAVAILABLE, retry_after_s, 0);
        return PJ_TRUE;
    }
    if (number < 0)
        return refuse_method(rdata, PJSIP_SC_METHOD_NOT_ALLOWED);
    /* Nobody outside a call may make us place one (RFC 3515), and what belongs to a dialog has
     * none here (RFC 3261 12.2.2, RFC 6086 4.2.2, RFC 6665 4.1.3). */
    if (number >= BEGIN_DIALOGS)
        return refuse_method(rdata, pj_stricmp2(&rdata->msg_info.msg->line.req.method.name,
                                                "REFER") == 0
                                        ? PJSIP_SC_FORBIDDEN
                                        : PJSIP_SC_CALL_TSX_DOES_NOT_EXIST);
    return PJ_FALSE;
}

/* PJSIP's transport layer dropped data before any module saw it. Keep-alives (RFC 5626 3.5.1) are
 * not malformed. */
static void
on_dropped_data(pjsip_tp_dropped_data *data)
{
    if (data->status == PJ_EIGNORED)
        return;
    pthread_mutex_lock(&g_lock);
    g_counters.malformed++;
    pthread_mutex_unlock(&g_lock);
}

static pj_status_t
on_unload(void) /* the endpoint is going away (libDestroy); install() may come again */
{
    g_endpt = NULL;
    return PJ_SUCCESS;
}

static pjsip_module g_module = {
    .name = {"callshield-guard", 16},
    .id = -1,
    .priority = PJSIP_MOD_PRIORITY_TSX_LAYER - 1,
    .unload = &on_unload,
    .on_rx_request = &on_rx_request,
    .on_rx_response = &on_rx_response,
};

/* ---------------------------------------------------------------- Python's side */

/* Every call into PJLIB needs a thread that PJLIB knows; it aborts the process otherwise. */
static int
require_endpoint(const char *what)
{
    if (pjsua_get_pjsip_endpt() == NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s needs a PJSIP endpoint: call pjsua2.Endpoint.libCreate() and libInit() "
                     "first.", what);
        return 0;
    }
    if (!pj_thread_is_registered()) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s was called on a thread that PJSIP does not know: call it on the thread "
                     "that called libCreate(), or call Endpoint.libRegisterThread() first.", what);
        return 0;
    }
    return 1;
}

static PyObject *
py_install(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (!require_endpoint("pjsip_guard.install()"))
        return NULL;
    pjsip_endpoint *endpt = pjsua_get_pjsip_endpt();
    if (g_endpt == endpt)
        Py_RETURN_NONE;
    g_endpt = endpt;
    pj_status_t status = pjsip_endpt_register_module(endpt, &g_module);
    if (status == PJ_SUCCESS && ((status = dialogs_register(endpt)) != PJ_SUCCESS ||
                                 (status = kept_register(endpt)) != PJ_SUCCESS))
        pjsip_endpt_unregister_module(endpt, &g_module);
    if (status != PJ_SUCCESS) {
        g_endpt = NULL;
        char text[PJ_ERR_MSG_SIZE];
        pj_str_t message = pj_strerror(status, text, sizeof text);
        return PyErr_Format(PyExc_RuntimeError, "PJSIP refused the guard module: %.*s.",
                            (int)message.slen, message.ptr);
    }
    pjsip_tpmgr_set_drop_data_cb(pjsip_endpt_get_tpmgr(endpt), &on_dropped_data);
    connections_register(endpt);
    Py_RETURN_NONE;
}

static int
parse_networks(PyObject *argument, network_list_t *out)
{
    PyObject *sequence =
        PySequence_Fast(argument, "networks must be a list of (address, prefix length) pairs.");
    if (sequence == NULL)
        return 0;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    network_t *items = PyMem_RawCalloc(count ? (size_t)count : 1, sizeof *items);
    if (items == NULL) {
        Py_DECREF(sequence);
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *text;
        int bits;
        PyObject *pair = PySequence_Fast_GET_ITEM(sequence, i);
        if (!PyTuple_Check(pair)) {
            PyErr_SetString(PyExc_TypeError,
                            "each network must be a tuple of an address and a prefix length.");
            goto fail;
        }
        if (!PyArg_ParseTuple(pair, "si;each network must be (address, prefix length)", &text,
                              &bits))
            goto fail;
        network_t *network = &items[i];
        int longest;
        if (inet_pton(AF_INET, text, network->base.octets + 12) == 1) {
            network->base.octets[10] = network->base.octets[11] = 0xff;
            longest = 32;
        } else if (inet_pton(AF_INET6, text, network->base.octets) == 1) {
            longest = 128;
        } else {
            PyErr_Format(PyExc_ValueError, "'%s' is not an IPv4 or IPv6 address.", text);
            goto fail;
        }
        if (bits < 0 || bits > longest) {
            PyErr_Format(PyExc_ValueError,
                         "the prefix length of '%s' is %d; it must be between 0 and %d.", text,
                         bits, longest);
            goto fail;
        }
        network->bits = bits + 128 - longest;
        network->base.is_v4 = network->bits >= 96 && is_mapped_v4(network->base.octets);
    }
    Py_DECREF(sequence);
    out->items = items;
    out->count = count;
    return 1;
fail:
    PyMem_RawFree(items);
    Py_DECREF(sequence);
    return 0;
}

static PyObject *
replace_networks(network_list_t *list, PyObject *argument)
{
    network_list_t fresh, old;
    if (!parse_networks(argument, &fresh))
        return NULL;
    pthread_mutex_lock(&g_lock);
    old = *list;
    *list = fresh;
    pthread_mutex_unlock(&g_lock);
    PyMem_RawFree(old.items);
    Py_RETURN_NONE;
}

static PyObject *
py_set_allowed_networks(PyObject *Py_UNUSED(module), PyObject *argument)
{
    return replace_networks(&g_allowed, argument);
}

static PyObject *
py_set_in_dialog_networks(PyObject *Py_UNUSED(module), PyObject *argument)
{
    return replace_networks(&g_in_dialog, argument);
}

static PyObject *
py_set_rate_limit(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"per_second", "burst", NULL};
    double per_second;
    int burst;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "di", names, &per_second, &burst))
        return NULL;
    if (!isfinite(per_second) || per_second < 0.0 || burst < 0 ||
        (per_second > 0.0 && burst < 1)) {
        PyErr_SetString(PyExc_ValueError,
                        "a rate limit needs per_second > 0 and burst >= 1, or per_second = 0 for "
                        "no limit.");
        return NULL;
    }
    pthread_mutex_lock(&g_lock);
    g_rate_per_second = per_second;
    g_rate_burst = (double)burst;
    memset(g_rates, 0, sizeof g_rates); /* everybody starts again with a full bucket */
    pthread_mutex_unlock(&g_lock);
    Py_RETURN_NONE;
}

static PyObject *
py_set_readiness(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ready", "retry_after_s", NULL};
    int ready, retry_after_s;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "pi", names, &ready, &retry_after_s))
        return NULL;
    if (retry_after_s < 0) {
        PyErr_SetString(PyExc_ValueError, "retry_after_s must not be negative.");
        return NULL;
    }
    if (g_endpt != NULL && pj_thread_is_registered())
        prune_allow(g_endpt); /* pjsua has started since install(), and added its own */
    pthread_mutex_lock(&g_lock);
    g_ready = ready;
    g_retry_after_s = retry_after_s;
    pthread_mutex_unlock(&g_lock);
    Py_RETURN_NONE;
}

static PyObject *
py_take_unknown_byes(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    bye_t taken[BYE_RING];
    unsigned count;
    pthread_mutex_lock(&g_lock);
    count = g_bye_count;
    for (unsigned i = 0; i < count; i++)
        taken[i] = g_byes[(g_bye_first + i) % BYE_RING];
    g_bye_first = g_bye_count = 0;
    pthread_mutex_unlock(&g_lock);

    PyObject *list = PyList_New(count);
    for (unsigned i = 0; i < count; i++) {
        if (list != NULL) {
            PyObject *bytes = PyBytes_FromStringAndSize(taken[i].data, (Py_ssize_t)taken[i].length);
            if (bytes == NULL)
                Py_CLEAR(list);
            else
                PyList_SET_ITEM(list, i, bytes);
        }
        free(taken[i].data);
    }
    return list;
}

static PyObject *
py_counters(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    pthread_mutex_lock(&g_lock);
    const counters_t now = g_counters;
    pthread_mutex_unlock(&g_lock);
    uint64_t refused;
    unsigned open;
    connections_count(&refused, &open);
#define COUNTER(name) #name, (unsigned long long)now.name
    return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsKsKsI}", COUNTER(received_requests),
                         COUNTER(refused_source), COUNTER(refused_source_answered),
                         COUNTER(rate_limited), COUNTER(options_ok), COUNTER(options_unready),
                         COUNTER(refused_method), COUNTER(false_tls),
                         COUNTER(unknown_byes), COUNTER(unknown_byes_dropped), COUNTER(malformed),
                         COUNTER(paths_mended),
                         "refused_connections", (unsigned long long)refused, "open_connections",
                         open);
#undef COUNTER
}

static PyObject *
py_info(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    /* Versions come from the libraries that are loaded now, not from the headers. */
    char ioqueue[32];
    snprintf(ioqueue, sizeof ioqueue, "%.*s", (int)strcspn(pj_ioqueue_name(), "["),
             pj_ioqueue_name()); /* "epoll[0x3]": the flags are PJLIB's own business */
    return Py_BuildValue("{sssisssssssi}", "pjsip_version", pj_get_version(), "max_calls",
                         (int)PJSUA_MAX_CALLS, "ioqueue", ioqueue, "tls",
                         OpenSSL_version(OPENSSL_VERSION), "srtp", srtp_get_version_string(),
                         "max_packet_bytes", (int)PJSIP_MAX_PKT_LEN);
}

static PyObject *
py_epoll_fd(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (!require_endpoint("pjsip_guard.epoll_fd()"))
        return NULL;
    /* pj_ioqueue_get_os_handle(): "For epoll/kqueue this will be a pointer to the file
     * descriptor" (pj/ioqueue.h). */
    const int *fd = pj_ioqueue_get_os_handle(pjsip_endpt_get_ioqueue(pjsua_get_pjsip_endpt()));
    if (fd == NULL || strncmp(pj_ioqueue_name(), "epoll", 5) != 0) { /* "epoll[flags]" */
        PyErr_Format(PyExc_RuntimeError,
                     "this PJSIP was built with the '%s' ioqueue, which has no descriptor to wait "
                     "on: pump libHandleEvents() from a timer.", pj_ioqueue_name());
        return NULL;
    }
    return PyLong_FromLong(*fd);
}

static PyObject *
py_next_timer_ms(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (!require_endpoint("pjsip_guard.next_timer_ms()"))
        return NULL;
    pj_timer_heap_t *heap = pjsip_endpt_get_timer_heap(pjsua_get_pjsip_endpt());
    pj_time_val due, now;
    if (heap == NULL || pj_timer_heap_earliest_time(heap, &due) != PJ_SUCCESS)
        Py_RETURN_NONE;
    pj_gettickcount(&now);
    if (PJ_TIME_VAL_LTE(due, now))
        return PyLong_FromLong(0);
    PJ_TIME_VAL_SUB(due, now);
    return PyLong_FromLong(PJ_TIME_VAL_MSEC(due));
}

static PyObject *
py_load(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    if (!require_endpoint("pjsip_guard.load()"))
        return NULL;
    return Py_BuildValue("{sIsI}", "transactions", pjsip_tsx_layer_get_tsx_count(), "dialogs",
                         pjsip_ua_get_dlg_set_count());
}

PyDoc_STRVAR(module_doc,
             "Refuses SIP requests before a transaction exists, and answers OPTIONS.\n\n"
             "The documentation of each function is in pjsip_guard.pyi.");

#define KEYWORDS(function) (PyCFunction)(void (*)(void)) function, METH_VARARGS | METH_KEYWORDS

static PyMethodDef g_methods[] = {
    {"install", py_install, METH_NOARGS, "Register the guard with the running endpoint."},
    {"set_allowed_networks", py_set_allowed_networks, METH_O, "Set who may send any request."},
    {"set_in_dialog_networks", py_set_in_dialog_networks, METH_O,
     "Set who may send requests inside dialogs only."},
    {"set_rate_limit", KEYWORDS(py_set_rate_limit), "Set the token bucket of each source."},
    {"set_connection_limits", KEYWORDS(py_set_connection_limits),
     "Set how many connections there may be."},
    {"set_readiness", KEYWORDS(py_set_readiness), "Set how OPTIONS is answered."},
    {"take_unknown_byes", py_take_unknown_byes, METH_NOARGS, "Take the BYEs of unknown dialogs."},
    {"take_requests", py_take_requests, METH_NOARGS, "Take the requests that Python answers."},
    {"answer_request", py_answer_request, METH_VARARGS, "Answer a request that was taken."},
    {"dialog", py_dialog, METH_VARARGS, "Return what names a call's dialog."},
    {"dialog_state", py_dialog_state, METH_VARARGS, "Return all that restores a call's dialog."},
    {"kept_open", KEYWORDS(py_kept_open), "Restore a dialog of a process that died."},
    {"kept_request", py_kept_request, METH_VARARGS, "Send a request in a restored dialog."},
    {"kept_answer", py_kept_answer, METH_VARARGS, "Answer a request of a restored dialog."},
    {"kept_close", py_kept_close, METH_VARARGS, "Forget a restored dialog."},
    {"invite_sent", py_invite_sent, METH_VARARGS, "Return a call's INVITE that awaits its answer."},
    {"send_raw", py_send_raw, METH_VARARGS, "Send a message as it stands."},
    {"kept_state", py_kept_state, METH_VARARGS, "Return what changes in a restored dialog."},
    {"take_kept", py_take_kept, METH_NOARGS, "Take what came in restored dialogs."},
    {"remote_sdp", py_remote_sdp, METH_VARARGS, "Return the far end's description in force."},
    {"counters", py_counters, METH_NOARGS, "Return the counters."},
    {"info", py_info, METH_NOARGS, "Return versions and limits of this build."},
    {"epoll_fd", py_epoll_fd, METH_NOARGS, "Return the descriptor to wait on."},
    {"next_timer_ms", py_next_timer_ms, METH_NOARGS, "Return when PJSIP's next timer is due."},
    {"load", py_load, METH_NOARGS, "Return how many transactions and dialogs PJSIP holds."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef g_definition = {
    PyModuleDef_HEAD_INIT, .m_name = "pjsip_guard", .m_doc = module_doc, .m_size = -1,
    .m_methods = g_methods,
};

PyMODINIT_FUNC PyInit_pjsip_guard(void);

PyMODINIT_FUNC
PyInit_pjsip_guard(void)
{
    if (getrandom(&g_hash_seed, sizeof g_hash_seed, GRND_NONBLOCK) != (ssize_t)sizeof g_hash_seed)
        g_hash_seed = (uint64_t)monotonic_ns(); /* early boot: weaker, still not a constant */
    return PyModule_Create(&g_definition);
}
