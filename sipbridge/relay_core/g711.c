/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "g711.h"

static int16_t linear[2][256];
static uint8_t from_linear[2][16384]; /* by the 14 upper bits of a sample */
static uint8_t to_other[2][256];

static inline int index_of(int law) { return law == CODEC_PCMA; }

static int16_t decode_mulaw(uint8_t code) {
    code = (uint8_t)~code;
    int magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4);
    return (int16_t)(code & 0x80 ? 0x84 - magnitude : magnitude - 0x84);
}

static int16_t decode_alaw(uint8_t code) {
    code ^= 0x55;
    int segment = (code & 0x70) >> 4;
    int magnitude = ((code & 0x0F) << 4) + (segment ? 0x108 : 8);
    if (segment > 1) magnitude <<= segment - 1;
    return (int16_t)(code & 0x80 ? magnitude : -magnitude);
}

static uint8_t encode_mulaw(int sample) {
    int value = sample >> 2, mask = value < 0 ? 0x7F : 0xFF;
    int magnitude = (value < 0 ? -value : value);
    if (magnitude > 0x1FFF - 0x21) magnitude = 0x1FFF - 0x21;
    magnitude += 0x21;
    int segment = 0;
    while (segment < 7 && magnitude > (0x3F << segment | ((1 << segment) - 1))) segment++;
    return (uint8_t)((segment << 4 | ((magnitude >> (segment + 1)) & 0x0F)) ^ mask);
}

static uint8_t encode_alaw(int sample) {
    int value = sample >> 3, mask = value < 0 ? 0x55 : 0xD5;
    int magnitude = value < 0 ? -value - 1 : value;
    int segment = 0;
    while (segment < 7 && magnitude > (0x1F << segment | ((1 << segment) - 1))) segment++;
    return (uint8_t)((segment << 4 | ((magnitude >> (segment ? segment : 1)) & 0x0F)) ^ mask);
}

void g711_init(void) {
    for (int code = 0; code < 256; code++) {
        linear[0][code] = decode_mulaw((uint8_t)code);
        linear[1][code] = decode_alaw((uint8_t)code);
    }
    for (int i = 0; i < 16384; i++) {
        int sample = (int16_t)(uint16_t)(i << 2);
        from_linear[0][i] = encode_mulaw(sample);
        from_linear[1][i] = encode_alaw(sample);
    }
    for (int code = 0; code < 256; code++) {
        to_other[0][code] = encode_alaw(linear[0][code]);
        to_other[1][code] = encode_mulaw(linear[1][code]);
    }
}

void g711_decode(int law, const uint8_t *codes, int16_t *samples, size_t count) {
    const int16_t *table = linear[index_of(law)];
    for (size_t i = 0; i < count; i++) samples[i] = table[codes[i]];
}

void g711_encode(int law, const int16_t *samples, uint8_t *codes, size_t count) {
    const uint8_t *table = from_linear[index_of(law)];
    for (size_t i = 0; i < count; i++) codes[i] = table[(uint16_t)samples[i] >> 2];
}

void g711_transcode(int from, int to, uint8_t *codes, size_t count) {
    if (from == to) return;
    const uint8_t *table = to_other[index_of(from)];
    for (size_t i = 0; i < count; i++) codes[i] = table[codes[i]];
}
