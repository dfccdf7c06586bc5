/* What protects the agent's ear: limiter, acoustic-shock guard, softening, levelling, dose.
 *
 * A pure core: no allocation, no clock, no lock, no global state. One `struct ear` a call, used by
 * one thread at a time. Samples are linear int16 at 8 kHz; levels are in dB relative to an RMS of
 * 32768 (dBov of ITU-T G.100.1: 0 dBm0 is -6.2 dBFS, a full-scale sine -3.0 dBFS). What each stage
 * does, and what was measured, is in docs/hearing.md.
 */
#ifndef CALLSHIELD_EAR_H
#define CALLSHIELD_EAR_H

#include <stddef.h>
#include <stdint.h>

enum {
    EAR_SEGMENT = 80,      /* samples looked at as one: 10 ms */
    EAR_PACKET_MAX = 480,  /* samples worked on at once: 60 ms; longer input is cut into pieces */
    EAR_BLOCK = 16,        /* step of the peak limiter's gain: 2 ms */
    EAR_FLOOR_BUCKETS = 4, /* parts of the window in which the noise floor is the minimum */
};

/* The [ear] section of the configuration; floats only (see ear_profile_fields). */
struct ear_profile {
    float limit_peak_dbfs;    /* no sample that leaves is larger, G.711 rounding included */
    float limit_rms_dbfs;     /* level above which the RMS limiter turns down */
    float limit_release_ms;   /* time in which the peak limiter lets go of two thirds */
    float shock_tone_dbfs;    /* tones louder than this are cut ... */
    float shock_cut_dbfs;     /* ... to this level */
    float shock_jump_db;      /* a rise this far over the talker's level is a burst */
    float soften_target_dbfs; /* upper end of what counts as the talker's calm level */
    float soften_ratio;       /* dB in for one dB out above it */
    float soften_max_db;      /* the most that softening takes away */
    float soften_tilt_db;     /* the most that it takes away from the treble besides */
    float target_rms_dbfs;    /* active speech level that levelling brings everybody to */
    float level_max_gain_db;  /* the most that quiet talkers are raised by */
    float level_max_cut_db;   /* the most that loud talkers are lowered by */
    float noise_reduction_db; /* what levelling takes away from steady noise in pauses */
};

/* For code that fills a profile by name. */
struct ear_profile_field {
    const char *name;
    size_t offset;
    float standard; /* the default */
    float low, high;
};
extern const struct ear_profile_field ear_profile_fields[];
extern const size_t ear_profile_field_count;

struct ear_counters {
    uint64_t packets;         /* calls of ear_process */
    uint64_t packets_changed; /* of them, those of which a sample was changed */
    uint64_t packets_limited; /* the peak or RMS limiter was at work */
    uint64_t packets_softened;
    uint64_t shock_tones;     /* tones or howls cut, one a tone */
    uint64_t shock_bursts;    /* bursts cut, one a burst */
};

struct ear {
    struct ear_profile profile;
    /* Linear or per-sample values of the profile, worked out once. */
    float ceiling, rms_ceiling_power, tone_power;
    float tilt_pole;
    int soften, levelling;

    /* Gain of the last sample, all stages but the peak limiter. */
    float gain, tilt;
    float tilt_state;
    float limiter_gain;
    int32_t limiter_hold_blocks;

    /* Shock guard: sums of products of the segment before, and what goes on. */
    float products[15], power_before;
    float shape_before[4];
    int32_t steady_segments;
    int in_tone, in_burst;
    float tone_db, burst_db;
    float tone_hold_ms, burst_hold_ms;

    /* Levels, in dB and mean square. */
    float smooth_power;
    float bucket_min[EAR_FLOOR_BUCKETS];
    float bucket_ms;
    uint32_t bucket;
    float talker_power, talker_weight_ms, loudest_db, usual_db;
    float calm_db;
    float soften_power, soften_db, soften_whole_db;
    float rms_power;
    float agc_db, expander_db, speech_hold_ms;

    /* A-weighting filter and what it has gathered. */
    float weighting_in[4], weighting_out[3];
    double dose_sum;
    uint64_t dose_samples;

    struct ear_counters counters;
};

void ear_profile_default(struct ear_profile *profile);

/* Values outside the fields' bounds, NaN included, are brought inside. */
void ear_init(struct ear *ear, const struct ear_profile *profile);

/* Forget the signal (after a gap or with a new source); switches, dose and counters stay. */
void ear_reset(struct ear *ear);

/* Switch softening and levelling; both fade in and out. */
void ear_set(struct ear *ear, int soften, int levelling);

/* Work on n samples in place; 1 when any of them was changed, 0: the packet may pass as it is. */
int ear_process(struct ear *ear, int16_t *samples, int n);

/* Sum of squares of the A-weighted output (full scale is 1) and its samples since the last take. */
void ear_take_dose(struct ear *ear, double *a_weighted_sum_sq, uint64_t *samples);

#endif
