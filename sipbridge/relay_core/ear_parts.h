/* What the ear's parts know of each other. */
#ifndef CALLSHIELD_EAR_PARTS_H
#define CALLSHIELD_EAR_PARTS_H

#include "ear.h"

/* Up to 10 ms of a packet, looked at as one. */
struct segment {
    int start, length;
    float ms;
    float power;        /* mean square, full scale is 1 */
    float peak;         /* int16 units */
    float products[15]; /* sums of x[n-i] * x[n-j], packed by rows: 00 01 .. 04 11 12 .. 44 */
    int tone;
};

/* ear_shock.c: measure a segment; mark those of a tone (`before`: the one before it in this packet,
 * or NULL); gain against tones and bursts in dB, 0 or less. */
void ear_look(struct segment *segment, const float *samples);
void ear_find_tone(struct ear *ear, struct segment *segment, struct segment *before);
float ear_guard_db(struct ear *ear, const struct segment *segment, float level_db);

/* ear_output.c: change samples (int16 units in floats) and write them back. */
void ear_ramp(float *samples, int n, float from, float to);
void ear_tame_treble(struct ear *ear, float *samples, int n, float from, float to);
int ear_limit_peaks(struct ear *ear, float *samples, int n, float ceiling);
int ear_write_back(const float *samples, int16_t *out, int n, float ceiling);
/* Add to the dose; the caller leaves four floats of room before `samples` and after them. */
void ear_weigh(struct ear *ear, float *samples, int n);

#endif
