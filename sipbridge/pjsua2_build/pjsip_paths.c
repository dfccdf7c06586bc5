/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pjsip_paths: where a far end's messages may lead our own requests. Part of pjsip_guard.
 *
 * Why. By RFC 3261 12.2.1.1 the requests of a dialog (ACK, BYE, re-INVITE) go to the far end's
 * Contact, or to the first entry of the route set that its Record-Route made. So a far end, or who
 * speaks in its name, can have us send SIP to any address and port, and a phone behind NAT names
 * one that nobody can reach. RFC 3261 is followed inside the networks that may send requests to
 * us; elsewhere the requests go where the far end's message came from. A host name counts as
 * elsewhere: whom it means is decided by a name server, and not twice the same.
 *
 * And: PJSIP ends a call whose session refresh is answered 491 (RFC 3261 14.1: both sides began at
 * once) or 500 with Retry-After (RFC 3311 5.2). It knows how to try again after a 503, so that is
 * what it gets to see; PJSIP_SESS_TIMER_RETRY_DELAY is within section 14.1's time.
 *
 * And: PJSIP looks a host name in a session description (c=, a=rtcp) up with the C library, and
 * every other call waits meanwhile, for as long as the name server likes. Such a name becomes "0",
 * which needs no looking up and is no address for Python either: the description is refused, or
 * (a=rtcp) the name was of no use anyway.
 *
 * And: PJSIP's media reads a=ssrc (RFC 5576), which is the relay's business, and takes its "cname"
 * for a token (RFC 4566). Browsers draw theirs from base 64: one in 64 begins with a slash, and the
 * call was ended with 488 as soon as it was answered. The attribute becomes one that nobody knows,
 * and what nobody knows is passed over (RFC 8866 5.13).
 *
 * How. Called by the guard below the transaction layer, before any dialog reads the message. */
#include "pjsip_paths.h"

#include <pjlib.h>
#include <pjsip_ua.h>

#include <string.h>

/* maddr goes before the host (RFC 3261 19.1.1). */
static int
is_inside(const pjsip_sip_uri *uri, const pjsip_rx_data *rdata, paths_allowed_t allowed)
{
    const pj_str_t *host = uri->maddr_param.slen > 0 ? &uri->maddr_param : &uri->host;
    pj_sockaddr address;
    if (pj_sockaddr_parse(pj_AF_UNSPEC(), 0, host, &address) != PJ_SUCCESS)
        return 0;
    if (address.addr.sa_family == rdata->pkt_info.src_addr.addr.sa_family &&
        pj_memcmp(pj_sockaddr_get_addr(&address), pj_sockaddr_get_addr(&rdata->pkt_info.src_addr),
                  pj_sockaddr_get_addr_len(&address)) == 0)
        return 1;
    return allowed(&address);
}

/* Is this text an address? pj_sockaddr_parse() would look a host name up, and wait for it. */
static int
is_address(const pj_str_t *host)
{
    char text[PJ_INET6_ADDRSTRLEN + 1];
    unsigned char binary[16];
    if (host->slen <= 0 || host->slen >= (pj_ssize_t)sizeof text)
        return 0;
    pj_memcpy(text, host->ptr, host->slen);
    text[host->slen] = '\0';
    const pj_str_t copy = pj_str(text);
    return pj_inet_pton(pj_AF_INET(), &copy, binary) == PJ_SUCCESS ||
           pj_inet_pton(pj_AF_INET6(), &copy, binary) == PJ_SUCCESS;
}

static int
mend(pjsip_uri *any, const pjsip_rx_data *rdata, paths_allowed_t allowed)
{
    if (any == NULL || (!PJSIP_URI_SCHEME_IS_SIP(any) && !PJSIP_URI_SCHEME_IS_SIPS(any)))
        return 0;
    pjsip_sip_uri *uri = pjsip_uri_get_uri(any);
    const pj_str_t *host = uri->maddr_param.slen > 0 ? &uri->maddr_param : &uri->host;
    if (is_address(host) && is_inside(uri, rdata, allowed))
        return 0;
    pj_strdup2(rdata->tp_info.pool, &uri->host, rdata->pkt_info.src_name);
    uri->port = rdata->pkt_info.src_port;
    uri->maddr_param.slen = 0;
    if (PJSIP_TRANSPORT_IS_RELIABLE(rdata->tp_info.transport))
        pj_strdup2(rdata->tp_info.pool, &uri->transport_param,
                   rdata->tp_info.transport->type_name);
    else
        uri->transport_param.slen = 0;
    return 1;
}

/* What a dialog takes its next hop from: the first of the route set, else the Contact. The caller
 * has its route set in the order of Record-Route, the called one in the reverse (12.1). */
static int
mend_next_hop(pjsip_rx_data *rdata, int is_response, paths_allowed_t allowed)
{
    pjsip_msg *msg = rdata->msg_info.msg;
    pjsip_rr_hdr *hop = NULL;
    for (pjsip_hdr *h = msg->hdr.next; h != &msg->hdr; h = h->next) {
        if (h->type == PJSIP_H_RECORD_ROUTE) {
            hop = (pjsip_rr_hdr *)h;
            if (!is_response)
                break;
        }
    }
    if (hop != NULL)
        return mend((pjsip_uri *)&hop->name_addr, rdata, allowed);
    pjsip_contact_hdr *contact = pjsip_msg_find_hdr(msg, PJSIP_H_CONTACT, NULL);
    return contact != NULL && !contact->star ? mend(contact->uri, rdata, allowed) : 0;
}

static int
is_target_refresh(const pjsip_method *method)
{
    static const pj_str_t update = {"UPDATE", 6};
    return method->id == PJSIP_INVITE_METHOD || pj_stricmp(&method->name, &update) == 0;
}

/* A dialog that has a route set keeps it whatever Contact says (RFC 3261 12.2.1.1). */
static int
is_routed(const pjsip_rx_data *rdata, const pj_str_t *local_tag, const pj_str_t *remote_tag)
{
    if (local_tag->slen == 0 || remote_tag->slen == 0)
        return 0;
    pjsip_dialog *dialog =
        pjsip_ua_find_dialog(&rdata->msg_info.cid->id, local_tag, remote_tag, PJ_FALSE);
    return dialog != NULL && dialog->state == PJSIP_DIALOG_STATE_ESTABLISHED &&
           !pj_list_empty(&dialog->route_set);
}

static int
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* A word of a line, and the blanks before it; as PJSIP's scanner, which takes any number of both. */
static pj_str_t
next_word(char **at, char *end)
{
    while (*at < end && is_blank(**at))
        (*at)++;
    char *start = *at;
    while (*at < end && !is_blank(**at))
        (*at)++;
    return (pj_str_t){start, *at - start};
}

/* "c=IN IP4 name" and "a=rtcp:5 IN IP4 name"; in place, so that Python reads the same. */
static int
mend_line(char *line, char *end)
{
    if (end - line < 10 || (memcmp(line, "c=", 2) != 0 && memcmp(line, "a=rtcp:", 7) != 0))
        return 0;
    char *at = line + 2;
    if (*line == 'a') {
        at = line + 7;
        while (at < end && (is_blank(*at) || (*at >= '0' && *at <= '9')))
            at++;
    }
    (void)next_word(&at, end); /* IN */
    (void)next_word(&at, end); /* IP4, IP6, or whatever PJSIP makes of it */
    pj_str_t host = next_word(&at, end);
    const char *slash = memchr(host.ptr, '/', (size_t)host.slen);
    if (slash != NULL)
        host.slen = slash - host.ptr;
    if (host.slen == 0 || is_address(&host) || (host.slen == 1 && *host.ptr == '0'))
        return 0;
    *host.ptr = '0';
    memset(host.ptr + 1, ' ', (size_t)host.slen - 1);
    return 1;
}

/* "a=ssrc:1 cname:/2x" */
static void
hide_source(char *line, const char *end)
{
    if (end - line >= 7 && memcmp(line, "a=ssrc:", 7) == 0)
        line[2] = 'x';
}

int
paths_of_description(pjsip_rx_data *rdata)
{
    /* The bytes, not PJSIP's body: that of a multipart message is no text. And all of them, with
     * any line end that PJSIP takes for one (a bare CR too): no header begins like these lines. */
    char *end = rdata->msg_info.msg_buf + rdata->msg_info.len;
    int mended = 0;
    for (char *line = rdata->msg_info.msg_buf; line < end;) {
        char *next = line;
        while (next < end && *next != '\r' && *next != '\n')
            next++;
        mended += mend_line(line, next);
        hide_source(line, next);
        line = next + 1;
    }
    return mended;
}

int
paths_of_request(pjsip_rx_data *rdata, paths_allowed_t allowed)
{
    if (!is_target_refresh(&rdata->msg_info.msg->line.req.method) ||
        is_routed(rdata, &rdata->msg_info.to->tag, &rdata->msg_info.from->tag))
        return 0;
    return mend_next_hop(rdata, 0, allowed);
}

int
paths_of_response(pjsip_rx_data *rdata, paths_allowed_t allowed)
{
    pjsip_msg *msg = rdata->msg_info.msg;
    const int code = msg->line.status.code;
    if (!is_target_refresh(&rdata->msg_info.cseq->method))
        return 0;
    if (code == PJSIP_SC_REQUEST_PENDING ||
        (code == PJSIP_SC_INTERNAL_SERVER_ERROR &&
         pjsip_msg_find_hdr(msg, PJSIP_H_RETRY_AFTER, NULL) != NULL)) {
        msg->line.status.code = PJSIP_SC_SERVICE_UNAVAILABLE;
        return 0;
    }
    if (code <= 100 || code >= 300 ||
        is_routed(rdata, &rdata->msg_info.from->tag, &rdata->msg_info.to->tag))
        return 0;
    return mend_next_hop(rdata, 1, allowed);
}
