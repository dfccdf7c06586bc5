/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * G.711 by table (ITU-T G.711). The two laws go by their static RTP payload types (RFC 3551): 0 is
 * mu-law (PCMU), 8 is A-law (PCMA).
 */
#ifndef CALLSHIELD_G711_H
#define CALLSHIELD_G711_H

#include <stddef.h>
#include <stdint.h>

/* Codecs by the numbers of callshield.tap.TapCodec. */
enum codec { CODEC_NONE = -1, CODEC_PCMU = 0, CODEC_PCMA = 8, CODEC_G722 = 9, CODEC_OPUS = 111 };

static inline int is_g711(int codec) { return codec == CODEC_PCMU || codec == CODEC_PCMA; }
static inline uint8_t g711_silence(int law) { return law == CODEC_PCMU ? 0xFF : 0xD5; }

void g711_init(void); /* once, before the others */
void g711_decode(int law, const uint8_t *codes, int16_t *samples, size_t count);
void g711_encode(int law, const int16_t *samples, uint8_t *codes, size_t count);
/* In place, from one law to the other (ITU-T G.711 tables 3 and 4 by way of linear). */
void g711_transcode(int from, int to, uint8_t *codes, size_t count);

#endif
