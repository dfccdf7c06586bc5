/* The acoustic-shock guard: what a segment is like, how far tones and bursts are turned down. */
#include "ear_math.h"
#include "ear_parts.h"

void ear_look(struct segment *segment, const float *samples)
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
    segment->power = sum4(c0) / ((float)n * EAR_FULL_SCALE * EAR_FULL_SCALE);
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
void ear_find_tone(struct ear *ear, struct segment *segment, struct segment *before)
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

float ear_guard_db(struct ear *ear, const struct segment *segment, float level_db)
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
