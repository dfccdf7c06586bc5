/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef PJSIP_PATHS_H
#define PJSIP_PATHS_H

#include <pjsip.h>

/* Whether requests of ours may go to this address; pjsip_guard knows the networks. */
typedef int (*paths_allowed_t)(const pj_sockaddr *address);

/* Mends where a received INVITE or UPDATE would have us send the requests of its dialog.
 * Returns 1 when it was mended. */
int paths_of_request(pjsip_rx_data *rdata, paths_allowed_t allowed);

/* The same for a response; and a glare becomes one that PJSIP tries again after. */
int paths_of_response(pjsip_rx_data *rdata, paths_allowed_t allowed);

/* Takes host names out of a session description, and a=ssrc out of PJSIP's sight. Returns how many
 * names there were. */
int paths_of_description(pjsip_rx_data *rdata);

#endif
