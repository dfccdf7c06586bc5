/* What is done to the samples: gains, treble, the peak limiter, and the dose meter's ear. */
#include "ear_math.h"
#include "ear_parts.h"

/* Multiply by a gain that runs from `from` to `to`: falling at once (2 ms), rising slowly. */
void ear_ramp(float *samples, int n, float from, float to)
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
void ear_tame_treble(struct ear *ear, float *samples, int n, float from, float to)
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
 * it, rests 40 ms, and comes back slowly. What the last packet's gain lets through is clipped. */
int ear_limit_peaks(struct ear *ear, float *samples, int n, float ceiling)
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
int ear_write_back(const float *samples, int16_t *out, int n, float ceiling)
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
void ear_weigh(struct ear *ear, float *samples, int n)
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
    v4 last[3];
    for (int k = 0; k < 3; k++)
        last[k] = all(ear->weighting_out[k]);
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
