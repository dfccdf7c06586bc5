/* See ear.h. No libm once ear_init is done: logarithms and powers come from short polynomials. */
#include "ear.h"

#include <math.h>
#include <string.h>

#define FIELD(name, standard, low, high) \
    {#name, offsetof(struct ear_profile, name), standard, low, high}

const struct ear_profile_field ear_profile_fields[] = {
    FIELD(limit_peak_dbfs, -6.0f, -30.0f, 0.0f),
    FIELD(limit_rms_dbfs, -18.0f, -50.0f, 0.0f),
    FIELD(limit_release_ms, 200.0f, 20.0f, 5000.0f),
    FIELD(shock_tone_dbfs, -26.0f, -60.0f, 0.0f),
    FIELD(shock_cut_dbfs, -46.0f, -90.0f, 0.0f),
    FIELD(shock_jump_db, 18.0f, 10.0f, 60.0f),
    FIELD(soften_target_dbfs, -26.0f, -50.0f, 0.0f),
    FIELD(soften_ratio, 5.0f, 1.0f, 20.0f),
    FIELD(soften_max_db, 20.0f, 0.0f, 40.0f),
    FIELD(soften_tilt_db, 4.0f, 0.0f, 12.0f),
    FIELD(target_rms_dbfs, -26.0f, -50.0f, -10.0f),
    FIELD(level_max_gain_db, 20.0f, 0.0f, 30.0f),
    FIELD(level_max_cut_db, 18.0f, 0.0f, 40.0f),
    FIELD(noise_reduction_db, 10.0f, 0.0f, 30.0f),
};
const size_t ear_profile_field_count = sizeof ear_profile_fields / sizeof *ear_profile_fields;

/* Four samples at once; GCC and Clang turn these into SSE or NEON, or plain code elsewhere. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef int16_t v4s __attribute__((vector_size(8)));

static const float FULL_SCALE = 32768.0f;
static const float MS_A_SAMPLE = 0.125f;
static const float SPEECH_POWER = 8e-7f; /* -61 dBFS: nothing quieter is taken for speech */
static const float QUIET = 1e-10f; /* -100 dBFS: nothing is quieter */
/* Rounding to the nearest G.711 value adds up to 3.4 % at ceilings of -30 dBFS and more (half a
 * step at the low end of a segment). */
static const float CODEC_MARGIN_DB = 0.30f;

static v4 load(const float *at)
{
    v4 value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void store(float *at, v4 value)
{
    memcpy(at, &value, sizeof value);
}

static v4 all(float value)
{
    return (v4){value, value, value, value};
}

static v4 choose(v4i where, v4 yes, v4 no)
{
    return (v4)((where & (v4i)yes) | (~where & (v4i)no));
}

static float sum4(v4 value)
{
    return (value[0] + value[2]) + (value[1] + value[3]);
}

static float smaller(float a, float b)
{
    return a < b ? a : b;
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

static float bounded(float value, float low, float high)
{
    return smaller(larger(value, low), high);
}

/* log2 of a positive normal float to 0.0002. */
static float log2_fast(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    float exponent = (float)((int32_t)(bits >> 23) - 127);
    bits = (bits & 0x7FFFFF) | 0x3F800000;
    float m;
    memcpy(&m, &bits, sizeof m);
    return exponent + (-2.7868f + m * (5.0470f + m * (-3.4925f + m * (1.5939f + m * (-0.40486f + m * 0.043429f)))));
}

/* 2 to the power of value, for -120..120, to 0.02 %. */
static float exp2_fast(float value)
{
    float whole = (float)(int32_t)(value + 200.0f) - 200.0f;
    float part = value - whole;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale * (1.0f + part * (0.69583f + part * (0.22606f + part * 0.078024f)));
}

static float power_db(float power)
{
    return 3.0103f * log2_fast(larger(power, QUIET));
}

static float gain_of_db(float db)
{
    return db == 0.0f ? 1.0f : exp2_fast(0.16609640f * bounded(db, -120.0f, 60.0f));
}

/* One step towards `target` of a one-pole filter: ms passed, time constant in ms. */
static float towards(float from, float target, float ms, float constant_ms)
{
    return from + (target - from) * (ms / (ms + constant_ms));
}

static float slewed(float from, float target, float most_down, float most_up)
{
    return from + bounded(target - from, -most_down, most_up);
}

void ear_profile_default(struct ear_profile *profile)
{
    for (size_t i = 0; i < ear_profile_field_count; i++) {
        const struct ear_profile_field *field = &ear_profile_fields[i];
        memcpy((char *)profile + field->offset, &field->standard, sizeof(float));
    }
}

void ear_init(struct ear *ear, const struct ear_profile *profile)
{
    memset(ear, 0, sizeof *ear);
    for (size_t i = 0; i < ear_profile_field_count; i++) {
        const struct ear_profile_field *field = &ear_profile_fields[i];
        float value;
        memcpy(&value, (const char *)profile + field->offset, sizeof value);
        value = value != value ? field->standard : bounded(value, field->low, field->high);
        memcpy((char *)&ear->profile + field->offset, &value, sizeof value);
    }
    const struct ear_profile *p = &ear->profile;
    ear->ceiling = floorf(32767.0f * powf(10.0f, (p->limit_peak_dbfs - CODEC_MARGIN_DB) / 20.0f));
    ear->rms_ceiling_power = powf(10.0f, p->limit_rms_dbfs / 10.0f);
    ear->tone_power = powf(10.0f, p->shock_tone_dbfs / 10.0f);
    ear->tilt_pole = 1.0f - expf(-2.0f * 3.14159265f * 1200.0f / 8000.0f);
    ear_reset(ear);
}

void ear_reset(struct ear *ear)
{
    const struct ear_profile *p = &ear->profile;
    ear->gain = 1.0f;
    ear->tilt = ear->tilt_state = 0.0f;
    ear->limiter_gain = 1.0f;
    ear->limiter_hold_blocks = 0;
    memset(ear->products, 0, sizeof ear->products);
    ear->power_before = 0.0f;
    memset(ear->shape_before, 0, sizeof ear->shape_before);
    ear->steady_segments = 0;
    ear->in_tone = ear->in_burst = 0;
    ear->tone_db = ear->burst_db = 0.0f;
    ear->tone_hold_ms = ear->burst_hold_ms = 0.0f;
    ear->smooth_power = QUIET;
    for (int i = 0; i < EAR_FLOOR_BUCKETS; i++)
        ear->bucket_min[i] = 1e-6f;
    ear->bucket_ms = 0.0f;
    ear->bucket = 0;
    /* Until somebody has talked, the nominal level of the network counts as the talker's. */
    ear->talker_power = exp2_fast(-26.0f / 3.0103f);
    ear->talker_weight_ms = 0.0f;
    ear->usual_db = -26.0f;
    ear->calm_db = p->soften_target_dbfs;
    ear->soften_power = QUIET;
    ear->soften_db = ear->soften_whole_db = 0.0f;
    ear->rms_power = QUIET;
    ear->agc_db = ear->expander_db = 0.0f;
    ear->loudest_db = -100.0f;
    ear->speech_hold_ms = 0.0f;
    memset(ear->weighting_in, 0, sizeof ear->weighting_in);
    memset(ear->weighting_out, 0, sizeof ear->weighting_out);
}

void ear_set(struct ear *ear, int soften, int levelling)
{
    ear->soften = soften != 0;
    ear->levelling = levelling != 0;
}

void ear_take_dose(struct ear *ear, double *a_weighted_sum_sq, uint64_t *samples)
{
    *a_weighted_sum_sq = ear->dose_sum;
    *samples = ear->dose_samples;
    ear->dose_sum = 0.0;
    ear->dose_samples = 0;
}

/* ------------------------------------------------------------------ the dose meter's filter */

/* y[n] = w[n] + pole * y[n-1] for four samples: a prefix sum in two steps, then the old value. */
static v4 one_pole(v4 w, float pole, v4 *last)
{
    const v4 zero = {0, 0, 0, 0};
    const float squared = pole * pole;
    w += all(pole) * __builtin_shufflevector(w, zero, 4, 0, 1, 2);
    w += all(squared) * __builtin_shufflevector(w, zero, 4, 5, 0, 1);
    w += (v4){pole, squared, squared * pole, squared * squared} * *last;
    *last = __builtin_shufflevector(w, w, 3, 3, 3, 3);
    return w;
}

/* A-weighting (IEC 61672-1) fitted for 8 kHz: two zeros at 0 Hz, two more and three real poles by
 * least squares on the curve's dB; within 0.11 dB from 100 Hz to 3.7 kHz (tests/test_ear.py). */
static void weigh(struct ear *ear, float *samples, int n)
{
    enum { HISTORY = 4 };
    static const double G = 0.88504382, Z1 = 0.82522904, Z2 = -0.04715157;
    static const float POLE[3] = {0.87440893f, 0.87440877f, 0.53626133f};
    const v4 c0 = all((float)G), c1 = all((float)(G * (-2.0 - Z1 - Z2))),
             c2 = all((float)(G * (1.0 + 2.0 * (Z1 + Z2) + Z1 * Z2))),
             c3 = all((float)(G * (-(Z1 + Z2) - 2.0 * Z1 * Z2))), c4 = all((float)(G * Z1 * Z2));
    float *x = samples - HISTORY; /* the caller leaves room before and after */
    memcpy(x, ear->weighting_in, sizeof ear->weighting_in);
    memset(samples + n, 0, HISTORY * sizeof *samples);
    v4 last[3] = {all(ear->weighting_out[0]), all(ear->weighting_out[1]), all(ear->weighting_out[2])};
    v4 sum = all(0.0f);
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        v4 y = c0 * load(x + i + 4) + c1 * load(x + i + 3) + c2 * load(x + i + 2) +
               c3 * load(x + i + 1) + c4 * load(x + i);
        y = one_pole(y, POLE[0], &last[0]);
        y = one_pole(y, POLE[1], &last[1]);
        y = one_pole(y, POLE[2], &last[2]);
        sum += y * y;
    }
    float total = sum4(sum), out[3] = {last[0][0], last[1][0], last[2][0]};
    for (; i < n; i++) {
        float y = c0[0] * x[i + 4] + c1[0] * x[i + 3] + c2[0] * x[i + 2] + c3[0] * x[i + 1] +
                  c4[0] * x[i];
        for (int k = 0; k < 3; k++)
            y = out[k] += y - out[k] + POLE[k] * out[k];
        total += y * y;
    }
    for (int k = 0; k < 3; k++) /* denormal numbers are slow */
        ear->weighting_out[k] = out[k] > -1e-6f && out[k] < 1e-6f ? 0.0f : out[k];
    memcpy(ear->weighting_in, x + n, sizeof ear->weighting_in);
    ear->dose_sum += (double)total * (1.0 / (32768.0 * 32768.0));
    ear->dose_samples += (uint64_t)n;
}

/* ------------------------------------------------------------------ looking at a segment */

struct segment {
    int start, length;
    float ms;
    float power;        /* mean square, full scale is 1 */
    float peak;         /* int16 units */
    float products[15]; /* sums of x[n-i] * x[n-j], packed by rows: 00 01 .. 04 11 12 .. 44 */
    int tone;
};

static void look(struct segment *segment, const float *samples)
{
    float x[EAR_SEGMENT + 8];
    const int n = segment->length;
    memcpy(x, samples, (size_t)n * sizeof *x);
    memset(x + n, 0, 8 * sizeof *x);
    v4 peak = all(0.0f), c0 = peak, c1 = peak, c2 = peak, c3 = peak, c4 = peak;
    for (int i = 0; i < n; i += 4) {
        v4 a = load(x + i), negative = -a;
        v4 b = choose(a > negative, a, negative);
        peak = choose(b > peak, b, peak);
        c0 += a * a;
    }
    segment->peak = larger(larger(peak[0], peak[1]), larger(peak[2], peak[3]));
    segment->power = sum4(c0) / ((float)n * FULL_SCALE * FULL_SCALE);
    segment->tone = 0;
    memset(segment->products, 0, sizeof segment->products);
    if (n < EAR_SEGMENT / 2)
        return;
    c0 = all(0.0f);
    for (int i = 4; i < n; i += 4) {
        v4 a = load(x + i);
        c0 += a * a;
        c1 += a * load(x + i - 1);
        c2 += a * load(x + i - 2);
        c3 += a * load(x + i - 3);
        c4 += a * load(x + i - 4);
    }
    /* Later rows follow from the first: shifting both factors by one drops and adds one product. */
    float *p = segment->products;
    const float first[5] = {sum4(c0), sum4(c1), sum4(c2), sum4(c3), sum4(c4)};
    memcpy(p, first, sizeof first);
    int row = 0, next = 5;
    for (int i = 1; i < 5; i++) {
        for (int j = i; j < 5; j++)
            p[next + j - i] = p[row + j - i] + x[4 - i] * x[4 - j] - x[n - i] * x[n - j];
        row = next;
        next += 5 - i;
    }
}

/* How far four-tap linear prediction (covariance method) falls below the signal, as a ratio of
 * energies: a sine or a sum of two is predicted nearly perfectly, speech hardly ever. */
static float unpredicted(const float one[15], const float other[15])
{
    static const int ROW[5] = {0, 5, 9, 12, 14};
    float m[5][5], lower[5][5], pivot[5];
    for (int i = 0; i < 5; i++)
        for (int j = i; j < 5; j++)
            m[i][j] = one[ROW[i] + j - i] + other[ROW[i] + j - i];
    const float energy = m[0][0], ridge = energy * 5e-6f + 1e-3f;
    float left = energy;
    for (int i = 1; i < 5; i++) { /* LDL' of rows 1..4, and row 0 as the right-hand side */
        float z = m[0][i];
        pivot[i] = m[i][i] + ridge;
        for (int k = 1; k < i; k++) {
            pivot[i] -= lower[i][k] * lower[i][k] * pivot[k];
            z -= lower[i][k] * m[0][k];
        }
        if (pivot[i] < ridge)
            pivot[i] = ridge;
        m[0][i] = z;
        for (int j = i + 1; j < 5; j++) {
            float value = m[i][j];
            for (int k = 1; k < i; k++)
                value -= lower[i][k] * lower[j][k] * pivot[k];
            lower[j][i] = value / pivot[i];
        }
        left -= z * z / pivot[i];
    }
    return larger(left, ridge) / (energy + 1e-3f);
}

/* Mark segments that belong to a tone: this one and, when it is still at hand, the one before. */
static void find_tone(struct ear *ear, struct segment *segment, struct segment *before)
{
    const float loud = ear->tone_power;
    const float e0 = segment->products[0] + 1e-3f;
    const float *p = segment->products;
    const float shape[4] = {p[1] / e0, p[2] / e0, p[3] / e0, p[4] / e0};
    if (segment->power > loud && ear->power_before > loud && segment->products[0] > 0.0f) {
        const float ratio = segment->power / ear->power_before;
        const float steepness =
            larger(shape[0] > 0.0f ? shape[0] : 0.0f, ear->shape_before[0]);
        const float left = unpredicted(segment->products, ear->products);
        /* Measured on speech (docs/hearing.md): low voices come close to a sine, and the lower
         * the pitch (the larger the correlation of neighbours) the closer. */
        const float most = steepness < 0.75f ? 0.0112f : steepness < 0.89f ? 0.0040f : 0.00112f;
        if (ratio > 0.63f && ratio < 1.6f && left < most) {
            segment->tone = 1;
            if (before)
                before->tone = 1;
        }
        /* Howl has overtones and is predicted less well, and low call-progress tones look like a
         * low voice: but these stand still, as no voice does. */
        float moved = 0.0f;
        for (int i = 0; i < 4; i++) {
            const float change = shape[i] - ear->shape_before[i];
            moved += change * change;
        }
        const int still = ratio > 0.9f && ratio < 1.11f && left < 0.5f && moved < 0.001f;
        ear->steady_segments = still || left < 0.004f ? ear->steady_segments + 1 : 0;
        if (ear->steady_segments >= 9)
            segment->tone = 1;
    } else {
        ear->steady_segments = 0;
    }
    memcpy(ear->products, segment->products, sizeof ear->products);
    memcpy(ear->shape_before, shape, sizeof shape);
    ear->power_before = segment->power;
}

/* ------------------------------------------------------------------ levels and gains */

/* The noise floor: the least smoothed power of the last 1.6 s. */
static float track_floor(struct ear *ear, const struct segment *segment)
{
    /* Down at once: the gaps of quick talkers are short. */
    const float power = larger(segment->power, QUIET);
    ear->smooth_power = towards(ear->smooth_power, power, segment->ms, power < ear->smooth_power ? 4.0f : 30.0f);
    ear->bucket_ms += segment->ms;
    if (ear->bucket_ms >= 400.0f) {
        ear->bucket_ms = 0.0f;
        ear->bucket = (ear->bucket + 1) % EAR_FLOOR_BUCKETS;
        ear->bucket_min[ear->bucket] = ear->smooth_power;
    }
    float *now = &ear->bucket_min[ear->bucket];
    *now = smaller(*now, ear->smooth_power);
    float least = ear->bucket_min[0];
    for (int i = 1; i < EAR_FLOOR_BUCKETS; i++)
        least = smaller(least, ear->bucket_min[i]);
    /* The minimum lies below the mean; -72 dBFS is the noise of an idle G.711 line. */
    return larger(least * 1.5f, 6e-8f);
}

static float guard_db(struct ear *ear, const struct segment *segment, float level_db)
{
    const struct ear_profile *p = &ear->profile;
    const float ms = segment->ms;
    if (segment->tone) {
        ear->counters.shock_tones += !ear->in_tone;
        ear->in_tone = 1;
        ear->tone_hold_ms = 60.0f;
        ear->tone_db = smaller(ear->tone_db, smaller(p->shock_cut_dbfs - level_db, 0.0f));
    } else if (ear->tone_hold_ms > 0.0f) {
        ear->tone_hold_ms -= ms;
    } else {
        ear->in_tone = 0;
        ear->tone_db = smaller(ear->tone_db + 0.2f * ms, 0.0f);
    }
    const float jump = level_db - ear->usual_db;
    if (jump > p->shock_jump_db && level_db > -30.0f) {
        ear->counters.shock_bursts += !ear->in_burst;
        ear->in_burst = 1;
        ear->burst_hold_ms = 30.0f;
        ear->burst_db = smaller(ear->burst_db, 3.0f - jump);
    } else if (ear->burst_hold_ms > 0.0f) {
        ear->burst_hold_ms -= ms;
    } else {
        ear->in_burst = 0;
        ear->burst_db = smaller(ear->burst_db + 0.15f * ms, 0.0f);
    }
    return smaller(ear->tone_db, ear->burst_db);
}

/* As ITU-T P.56 would have it, which counts the gaps between syllables in (measured: 1.7 dB). */
static float talker_level_db(const struct ear *ear)
{
    return power_db(ear->talker_power) - 1.7f;
}

/* Level of the talker while he talks, slowly: what levelling aims with. Bursts are held
 * against usual_db, which follows it down slowly: the next word after a faint one is no burst. */
static void learn_talker(struct ear *ear, const struct segment *segment, float floor_power, float guard)
{
    /* Even a segment that was cut counts a little, or a talker who has turned loud for good
     * would be held down for ever. */
    const float most = guard < -1.0f ? ear->talker_power * 8.0f : 1.0f;
    const float power = smaller(segment->power - floor_power, most);
    /* Syllables stand some dB over the level of the talker. When none did for a while, he has
     * calmed down, and should be heard as before. */
    ear->loudest_db = larger(power_db(segment->power), ear->loudest_db - 0.02f * segment->ms);
    const int calmed = ear->loudest_db < talker_level_db(ear) + 1.0f;
    const float constant = calmed ? 300.0f : larger(200.0f, smaller(ear->talker_weight_ms, 1200.0f));
    ear->talker_power = towards(ear->talker_power, power, segment->ms, constant);
    ear->talker_weight_ms = smaller(ear->talker_weight_ms + segment->ms, 1200.0f);
}

static float levelling_db(struct ear *ear, int speech, float ms, float talker_db, float level_db, float floor_db)
{
    const struct ear_profile *p = &ear->profile;
    if (!ear->levelling) {
        ear->agc_db = slewed(ear->agc_db, 0.0f, 0.03f * ms, 0.03f * ms);
        ear->expander_db = slewed(ear->expander_db, 0.0f, 0.03f * ms, 0.03f * ms);
        return ear->agc_db + ear->expander_db;
    }
    if (speech) {
        const float wanted = bounded(p->target_rms_dbfs - talker_db, -p->level_max_cut_db, p->level_max_gain_db);
        ear->agc_db = slewed(ear->agc_db, wanted, 0.03f * ms, 0.02f * ms);
        ear->speech_hold_ms = 200.0f;
    } else {
        ear->speech_hold_ms = larger(ear->speech_hold_ms - ms, 0.0f);
    }
    /* In pauses nothing is louder than it came, and steady noise is quieter. */
    const float closed = -p->noise_reduction_db - larger(ear->agc_db, 0.0f);
    const float above = level_db - floor_db;
    const float wanted = (above >= 6.0f && level_db > -61.0f) || ear->speech_hold_ms > 0.0f ? 0.0f : closed;
    ear->expander_db = slewed(ear->expander_db, wanted, 0.08f * ms, 60.0f);
    return ear->agc_db + ear->expander_db;
}

/* Calm speech swings this far above its own level (measured: docs/hearing.md). */
static const float SOFTEN_KNEE_DB = 6.0f;

/* Reduction of a shout; `power` is what levelling has left. The talker as a whole comes down to his
 * calm level (levelling has done that where it is on), and what still stands out is compressed. */
static float softening_db(struct ear *ear, float power, float ms, int speech, float talker_db)
{
    const struct ear_profile *p = &ear->profile;
    const float target = p->soften_target_dbfs;
    if (speech)
        ear->calm_db =
            slewed(ear->calm_db, bounded(talker_db, target - 12.0f, target), 0.0005f * ms, 0.0005f * ms);
    const int whole = ear->soften && !ear->levelling;
    if (speech || !whole) {
        const float over = whole ? bounded(talker_db - ear->calm_db, 0.0f, p->soften_max_db) : 0.0f;
        ear->soften_whole_db = slewed(ear->soften_whole_db, -over, 0.04f * ms, 0.03f * ms);
    }
    if (ear->soften_whole_db < 0.0f) {
        const float gain = gain_of_db(ear->soften_whole_db);
        power *= gain * gain;
    }
    ear->soften_power = power > ear->soften_power ? towards(ear->soften_power, power, ms, 2.0f)
                                                  : towards(ear->soften_power, power, ms, 120.0f);
    float wanted = 0.0f;
    if (ear->soften) {
        const float threshold = (ear->levelling ? p->target_rms_dbfs : ear->calm_db) + SOFTEN_KNEE_DB;
        const float over = larger(power_db(ear->soften_power) - threshold, 0.0f);
        wanted = -smaller(over * (1.0f - 1.0f / p->soften_ratio), p->soften_max_db);
    }
    ear->soften_db = slewed(ear->soften_db, wanted, 60.0f, 0.15f * ms);
    return larger(ear->soften_whole_db + ear->soften_db, -p->soften_max_db);
}

static float rms_limit_db(struct ear *ear, float power, float ms)
{
    ear->rms_power = power > ear->rms_power ? towards(ear->rms_power, power, ms, 25.0f)
                                            : towards(ear->rms_power, power, ms, 200.0f);
    if (ear->rms_power <= ear->rms_ceiling_power)
        return 0.0f;
    return ear->profile.limit_rms_dbfs - power_db(ear->rms_power);
}

/* ------------------------------------------------------------------ changing samples */

/* Multiply by a gain that runs from `from` to `to`: falling at once (2 ms), rising slowly. */
static void ramp(float *samples, int n, float from, float to)
{
    const int steps = to < from && n > EAR_BLOCK ? EAR_BLOCK : n;
    const float step = (to - from) / (float)steps;
    int i = 0;
    for (; i < steps; i++)
        samples[i] *= from + step * (float)(i + 1);
    for (; i < n; i++)
        samples[i] *= to;
}

/* Blend in the low-passed signal: a treble shelf whose depth runs from `from` to `to` (0..1). */
static void tame_treble(struct ear *ear, float *samples, int n, float from, float to)
{
    const float step = (to - from) / (float)n, pole = ear->tilt_pole;
    float low = ear->tilt_state;
    for (int i = 0; i < n; i++) {
        low += pole * (samples[i] - low);
        samples[i] += (from + step * (float)(i + 1)) * (low - samples[i]);
    }
    ear->tilt_state = low > -1e-6f && low < 1e-6f ? 0.0f : low;
}

/* Bring peaks under `ceiling`: gain falls before the peak where the packet still has room before
 * it, rests 40 ms, and comes back slowly. What a gain from the last packet lets through is clipped. */
static int limit_peaks(struct ear *ear, float *samples, int n, float ceiling)
{
    enum { BLOCKS = EAR_PACKET_MAX / EAR_BLOCK };
    float needed[BLOCKS + 1], gain[BLOCKS + 1];
    const int blocks = (n + EAR_BLOCK - 1) / EAR_BLOCK;
    float least = 1.0f;
    for (int b = 0; b < blocks; b++) {
        const int start = b * EAR_BLOCK, end = start + EAR_BLOCK < n ? start + EAR_BLOCK : n;
        float peak = 0.0f;
        for (int i = start; i < end; i++)
            peak = larger(peak, samples[i] < 0.0f ? -samples[i] : samples[i]);
        needed[b] = peak > ceiling ? ceiling / peak : 1.0f;
        least = smaller(least, needed[b]);
    }
    if (least == 1.0f && ear->limiter_gain == 1.0f)
        return 0;
    needed[blocks] = 1.0f;
    gain[0] = ear->limiter_gain;
    const float back = 2.0f / (2.0f + ear->profile.limit_release_ms);
    for (int b = 1; b <= blocks; b++) {
        const float most = smaller(needed[b - 1], needed[b]);
        if (most <= gain[b - 1]) {
            gain[b] = most;
            if (most < 1.0f)
                ear->limiter_hold_blocks = 20;
        } else if (ear->limiter_hold_blocks > 0) {
            gain[b] = gain[b - 1];
            ear->limiter_hold_blocks--;
        } else {
            const float released = gain[b - 1] + (1.0f - gain[b - 1]) * back;
            gain[b] = smaller(released > 0.995f ? 1.0f : released, most);
        }
    }
    for (int b = blocks - 1; b > 0; b--) /* at most 6 dB in 2 ms where there is room for it */
        gain[b] = smaller(gain[b], gain[b + 1] * 2.0f);
    for (int b = 0; b < blocks; b++) {
        const int start = b * EAR_BLOCK;
        const int length = start + EAR_BLOCK < n ? EAR_BLOCK : n - start;
        const int late = b == 0 && gain[0] > needed[0];
        const int steps = late && length > 6 ? 6 : length;
        const float step = (gain[b + 1] - gain[b]) / (float)steps;
        for (int i = 0; i < length; i++)
            samples[start + i] *= i < steps ? gain[b] + step * (float)(i + 1) : gain[b + 1];
    }
    ear->limiter_gain = gain[blocks];
    return 1;
}

/* Round, clip at the ceiling and write back; 1 when any sample differs from what was there. */
static int write_back(const float *samples, int16_t *out, int n, float ceiling)
{
    v4i differs = {0, 0, 0, 0};
    int i = 0;
    const v4 top = all(ceiling), bottom = -top, zero = all(0.0f), half = all(0.5f), minus = -half;
    for (; i + 4 <= n; i += 4) {
        v4 y = load(samples + i);
        y = choose(y > top, top, y);
        y = choose(y < bottom, bottom, y);
        y += choose(y < zero, minus, half);
        const v4i whole = __builtin_convertvector(y, v4i);
        v4s before;
        memcpy(&before, out + i, sizeof before);
        differs |= whole ^ __builtin_convertvector(before, v4i);
        const v4s now = __builtin_convertvector(whole, v4s);
        memcpy(out + i, &now, sizeof now);
    }
    int32_t any = differs[0] | differs[1] | differs[2] | differs[3];
    for (; i < n; i++) {
        const float y = bounded(samples[i], -ceiling, ceiling);
        const int32_t whole = (int32_t)(y < 0.0f ? y - 0.5f : y + 0.5f);
        any |= whole ^ out[i];
        out[i] = (int16_t)whole;
    }
    return any != 0;
}

static int process_packet(struct ear *ear, int16_t *samples, int n)
{
    float room[4 + EAR_PACKET_MAX + 8];
    float *const x = room + 4;
    struct segment segments[EAR_PACKET_MAX / EAR_SEGMENT];
    const int count = (n + EAR_SEGMENT - 1) / EAR_SEGMENT;

    int i = 0;
    for (; i + 4 <= n; i += 4) {
        v4s four;
        memcpy(&four, samples + i, sizeof four);
        store(x + i, __builtin_convertvector(four, v4));
    }
    for (; i < n; i++)
        x[i] = (float)samples[i];

    float peak = 0.0f;
    for (int s = 0; s < count; s++) {
        struct segment *segment = &segments[s];
        segment->start = n * s / count;
        segment->length = n * (s + 1) / count - segment->start;
        segment->ms = MS_A_SAMPLE * (float)segment->length;
        look(segment, x + segment->start);
        find_tone(ear, segment, s > 0 ? &segments[s - 1] : NULL);
        peak = larger(peak, segment->peak);
    }

    int touched = 0, limited = 0, softened = 0;
    float talker_db = talker_level_db(ear);
    for (int s = 0; s < count; s++) {
        const struct segment *segment = &segments[s];
        const float level_db = power_db(segment->power);
        const float floor_power = track_floor(ear, segment);
        const float guard = guard_db(ear, segment, level_db);
        const int speech = !segment->tone && segment->power > floor_power * 4.0f && segment->power > SPEECH_POWER;
        if (speech) {
            learn_talker(ear, segment, floor_power, guard);
            talker_db = talker_level_db(ear);
            ear->usual_db = larger(talker_db, ear->usual_db - 0.001f * segment->ms);
        }
        float db = guard;
        if (ear->levelling || ear->agc_db != 0.0f || ear->expander_db != 0.0f)
            db += levelling_db(ear, speech, segment->ms, talker_db, level_db, power_db(floor_power));
        float power = segment->power;
        if (db != 0.0f) {
            const float gain = gain_of_db(db);
            power *= gain * gain;
        }
        const float soften = softening_db(ear, power, segment->ms, speech, talker_db);
        if (soften < 0.0f) {
            const float gain = gain_of_db(soften);
            power *= gain * gain;
            db += soften;
            softened = 1;
        }
        const float rms = rms_limit_db(ear, power, segment->ms);
        limited |= rms < 0.0f;
        const float to = gain_of_db(db + rms);
        if (to != 1.0f || ear->gain != 1.0f) {
            ramp(x + segment->start, segment->length, ear->gain, to);
            ear->gain = to;
            touched = 1;
        }
        const float deep = 1.0f - gain_of_db(larger(0.5f * soften, -ear->profile.soften_tilt_db));
        if (deep > 0.0f || ear->tilt > 0.0f) {
            tame_treble(ear, x + segment->start, segment->length, ear->tilt, deep);
            ear->tilt = deep;
            touched = 1;
        } else if (segment->length) {
            ear->tilt_state = x[segment->start + segment->length - 1];
        }
    }

    /* A single click is held against the talker's level, too: speech rarely peaks 22 dB above it. */
    const float click = FULL_SCALE * gain_of_db(ear->usual_db + ear->agc_db + ear->profile.shock_jump_db + 4.0f);
    const float ceiling = smaller(ear->ceiling, larger(click, 0.03f * FULL_SCALE));
    if (touched || peak > ceiling || ear->limiter_gain != 1.0f)
        if (limit_peaks(ear, x, n, ceiling))
            touched = limited = 1;
    const int changed = touched && write_back(x, samples, n, ceiling);
    weigh(ear, x, n);
    ear->counters.packets++;
    ear->counters.packets_changed += (uint64_t)changed;
    ear->counters.packets_limited += (uint64_t)limited;
    ear->counters.packets_softened += (uint64_t)softened;
    return changed;
}

int ear_process(struct ear *ear, int16_t *samples, int n)
{
    int changed = 0;
    for (; n > 0; n -= EAR_PACKET_MAX, samples += EAR_PACKET_MAX)
        changed |= process_packet(ear, samples, n < EAR_PACKET_MAX ? n : EAR_PACKET_MAX);
    return changed;
}
