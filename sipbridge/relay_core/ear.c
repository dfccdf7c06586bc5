/* See ear.h. No libm once ear_init is done: logarithms and powers come from short polynomials. */
#include "ear.h"

#include <math.h>
#include <string.h>

#include "ear_math.h"
#include "ear_parts.h"

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

/* Rounding to the nearest G.711 value adds up to 3.4 % at ceilings of -30 dBFS and more (half a
 * step at the low end of a segment). */
static const float CODEC_MARGIN_DB = 0.30f;

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
    ear->smooth_power = EAR_QUIET;
    for (int i = 0; i < EAR_FLOOR_BUCKETS; i++)
        ear->bucket_min[i] = 1e-6f;
    ear->bucket_ms = 0.0f;
    ear->bucket = 0;
    /* Until somebody has talked, the nominal level of the network counts as the talker's. */
    ear->talker_power = exp2_fast(-26.0f / 3.0103f);
    ear->talker_weight_ms = 0.0f;
    ear->usual_db = -26.0f;
    ear->calm_db = p->soften_target_dbfs;
    ear->soften_power = EAR_QUIET;
    ear->soften_db = ear->soften_whole_db = 0.0f;
    ear->rms_power = EAR_QUIET;
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

/* The noise floor: the least smoothed power of the last 1.6 s. */
static float track_floor(struct ear *ear, const struct segment *segment)
{
    /* Down at once: the gaps of quick talkers are short. */
    const float power = larger(segment->power, EAR_QUIET);
    const float constant = power < ear->smooth_power ? 4.0f : 30.0f;
    ear->smooth_power = towards(ear->smooth_power, power, segment->ms, constant);
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

/* As ITU-T P.56 would have it, which counts the gaps between syllables in (measured: 1.7 dB). */
static float talker_level_db(const struct ear *ear)
{
    return power_db(ear->talker_power) - 1.7f;
}

/* Level of the talker while he talks, slowly: what levelling aims with. Bursts are held
 * against usual_db, which follows it down slowly: the next word after a faint one is no burst. */
static void learn_talker(struct ear *ear, const struct segment *segment, float floor_power,
                         float guard)
{
    /* Even a segment that was cut counts a little, or a talker who has turned loud for good
     * would be held down for ever. */
    const float most = guard < -1.0f ? ear->talker_power * 8.0f : 1.0f;
    const float power = smaller(segment->power - floor_power, most);
    /* Syllables stand some dB over the level of the talker. When none did for a while, he has
     * calmed down, and should be heard as before. */
    ear->loudest_db = larger(power_db(segment->power), ear->loudest_db - 0.02f * segment->ms);
    const int calmed = ear->loudest_db < talker_level_db(ear) + 1.0f;
    const float known = larger(200.0f, smaller(ear->talker_weight_ms, 1200.0f));
    const float constant = calmed ? 300.0f : known;
    ear->talker_power = towards(ear->talker_power, power, segment->ms, constant);
    ear->talker_weight_ms = smaller(ear->talker_weight_ms + segment->ms, 1200.0f);
}

static float levelling_db(struct ear *ear, int speech, float ms, float talker_db, float level_db,
                          float floor_db)
{
    const struct ear_profile *p = &ear->profile;
    if (!ear->levelling) {
        ear->agc_db = slewed(ear->agc_db, 0.0f, 0.03f * ms, 0.03f * ms);
        ear->expander_db = slewed(ear->expander_db, 0.0f, 0.03f * ms, 0.03f * ms);
        return ear->agc_db + ear->expander_db;
    }
    if (speech) {
        const float wanted = bounded(p->target_rms_dbfs - talker_db, -p->level_max_cut_db,
                                     p->level_max_gain_db);
        ear->agc_db = slewed(ear->agc_db, wanted, 0.03f * ms, 0.02f * ms);
        ear->speech_hold_ms = 200.0f;
    } else {
        ear->speech_hold_ms = larger(ear->speech_hold_ms - ms, 0.0f);
    }
    /* In pauses nothing is louder than it came, and steady noise is quieter. */
    const float closed = -p->noise_reduction_db - larger(ear->agc_db, 0.0f);
    const float above = level_db - floor_db;
    const int open = (above >= 6.0f && level_db > -61.0f) || ear->speech_hold_ms > 0.0f;
    const float wanted = open ? 0.0f : closed;
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
    if (speech) {
        const float calm = bounded(talker_db, target - 12.0f, target);
        ear->calm_db = slewed(ear->calm_db, calm, 0.0005f * ms, 0.0005f * ms);
    }
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
        const float calm = ear->levelling ? p->target_rms_dbfs : ear->calm_db;
        const float threshold = calm + SOFTEN_KNEE_DB;
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
        segment->ms = EAR_MS_A_SAMPLE * (float)segment->length;
        ear_look(segment, x + segment->start);
        ear_find_tone(ear, segment, s > 0 ? &segments[s - 1] : NULL);
        peak = larger(peak, segment->peak);
    }

    int touched = 0, limited = 0, softened = 0;
    float talker_db = talker_level_db(ear);
    for (int s = 0; s < count; s++) {
        const struct segment *segment = &segments[s];
        const float level_db = power_db(segment->power);
        const float floor_power = track_floor(ear, segment);
        const float guard = ear_guard_db(ear, segment, level_db);
        const int speech = !segment->tone && segment->power > floor_power * 4.0f &&
                           segment->power > EAR_SPEECH_POWER;
        if (speech) {
            learn_talker(ear, segment, floor_power, guard);
            talker_db = talker_level_db(ear);
            ear->usual_db = larger(talker_db, ear->usual_db - 0.001f * segment->ms);
        }
        float db = guard;
        if (ear->levelling || ear->agc_db != 0.0f || ear->expander_db != 0.0f)
            db += levelling_db(ear, speech, segment->ms, talker_db, level_db,
                               power_db(floor_power));
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
            ear_ramp(x + segment->start, segment->length, ear->gain, to);
            ear->gain = to;
            touched = 1;
        }
        const float least = -ear->profile.soften_tilt_db;
        const float deep = 1.0f - gain_of_db(larger(0.5f * soften, least));
        if (deep > 0.0f || ear->tilt > 0.0f) {
            ear_tame_treble(ear, x + segment->start, segment->length, ear->tilt, deep);
            ear->tilt = deep;
            touched = 1;
        } else if (segment->length) {
            ear->tilt_state = x[segment->start + segment->length - 1];
        }
    }

    /* A single click is held against the talker's level, too: speech rarely peaks 22 dB over it. */
    const float click_db = ear->usual_db + ear->agc_db + ear->profile.shock_jump_db + 4.0f;
    const float click = EAR_FULL_SCALE * larger(gain_of_db(click_db), 0.03f);
    const float ceiling = smaller(ear->ceiling, click);
    if (touched || peak > ceiling || ear->limiter_gain != 1.0f)
        if (ear_limit_peaks(ear, x, n, ceiling))
            touched = limited = 1;
    const int changed = touched && ear_write_back(x, samples, n, ceiling);
    ear_weigh(ear, x, n);
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
