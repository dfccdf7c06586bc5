/* PJSIP's compile-time limits for Callshield; becomes pjlib/include/pj/config_site.h.
 *
 * Each call through the bridge is two call legs, so 1800 legs carry 800 calls
 * (sip.admission_limit at most), helpers' phones and what waits for its end. */

/* Sockets: a SIP/TLS connection each, and head-room. With epoll they cost nothing unused. */
#define PJ_IOQUEUE_MAX_HANDLES 8192

#define PJSUA_MAX_CALLS 1800
#define PJSUA_MAX_CONF_PORTS 4000
#define PJSUA_MAX_ACC 64
#define PJMEDIA_HAS_VIDEO 0

/* The AEAD suites of RFC 7714: SRTP is the relay's, but PJSIP has to let their offers through. */
#define PJMEDIA_SRTP_HAS_AES_GCM_256 1
#define PJMEDIA_SRTP_HAS_AES_GCM_128 1
/* Their names since libsrtp 2.3, whichever crypto library is behind it. */
#define srtp_aes_gcm_256_openssl srtp_aes_gcm_256
#define srtp_aes_gcm_128_openssl srtp_aes_gcm_128

/* Sizes of hash tables, not of anything allocated per entry. */
#define PJSIP_MAX_TSX_COUNT ((64 * 1024) - 1)
#define PJSIP_MAX_DIALOG_COUNT ((64 * 1024) - 1)

/* The default of 4000 silently cuts a 4.3 kB INVITE (long SDP, Diversion, P-Asserted-Identity)
 * into one without SDP. */
#define PJSIP_MAX_PKT_LEN 16384

/* The default of 256 refuses requests whose Record-Route or Contact carries long parameters. */
#define PJSIP_MAX_URL_SIZE 1024

/* RFC 3261 18.1.1 would move a request of more than 1300 bytes to TCP; PBX trunks on UDP don't
 * listen there. */
#define PJSIP_DONT_SWITCH_TO_TCP 1

/* Room for a burst of requests while Python is busy for a moment; the kernel's default holds about
 * 90. What net.core.rmem_max does not allow is left out. */
#define PJSIP_UDP_SO_RCVBUF_SIZE (4 * 1024 * 1024)

/* A session refresh that met one of the far end's is sent again after 2.1 to 4 s (RFC 3261 14.1);
 * see pjsip_paths.c. */
#define PJSIP_SESS_TIMER_RETRY_DELAY 3
