/* Small mathematics of the ear's parts: four samples at once, levels and gains without libm. */
#ifndef CALLSHIELD_EAR_MATH_H
#define CALLSHIELD_EAR_MATH_H

#include <stdint.h>
#include <string.h>

/* Four samples at once; GCC and Clang turn these into SSE or NEON, or plain code elsewhere. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef int16_t v4s __attribute__((vector_size(8)));

#define EAR_FULL_SCALE 32768.0f
#define EAR_MS_A_SAMPLE 0.125f
#define EAR_SPEECH_POWER 8e-7f /* -61 dBFS: nothing quieter is taken for speech */
#define EAR_QUIET 1e-10f /* -100 dBFS: nothing is quieter */

static inline v4 load(const float *at)
{
    v4 value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void store(float *at, v4 value)
{
    memcpy(at, &value, sizeof value);
}

static inline v4 all(float value)
{
    return (v4){value, value, value, value};
}

static inline v4 choose(v4i where, v4 yes, v4 no)
{
    return (v4)((where & (v4i)yes) | (~where & (v4i)no));
}

static inline float sum4(v4 value)
{
    return (value[0] + value[2]) + (value[1] + value[3]);
}

static inline float smaller(float a, float b)
{
    return a < b ? a : b;
}

static inline float larger(float a, float b)
{
    return a > b ? a : b;
}

static inline float bounded(float value, float low, float high)
{
    return smaller(larger(value, low), high);
}

/* log2 of a positive normal float to 0.0002. */
static inline float log2_fast(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    float exponent = (float)((int32_t)(bits >> 23) - 127);
    bits = (bits & 0x7FFFFF) | 0x3F800000;
    float m;
    memcpy(&m, &bits, sizeof m);
    const float high = 1.5939f + m * (-0.40486f + m * 0.043429f);
    return exponent + (-2.7868f + m * (5.0470f + m * (-3.4925f + m * high)));
}

/* 2 to the power of value, for -120..120, to 0.02 %. */
static inline float exp2_fast(float value)
{
    float whole = (float)(int32_t)(value + 200.0f) - 200.0f;
    float part = value - whole;
    uint32_t bits = (uint32_t)((int32_t)whole + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale * (1.0f + part * (0.69583f + part * (0.22606f + part * 0.078024f)));
}

static inline float power_db(float power)
{
    return 3.0103f * log2_fast(larger(power, EAR_QUIET));
}

static inline float gain_of_db(float db)
{
    return db == 0.0f ? 1.0f : exp2_fast(0.16609640f * bounded(db, -120.0f, 60.0f));
}

/* One step towards `target` of a one-pole filter: ms passed, time constant in ms. */
static inline float towards(float from, float target, float ms, float constant_ms)
{
    return from + (target - from) * (ms / (ms + constant_ms));
}

static inline float slewed(float from, float target, float most_down, float most_up)
{
    return from + bounded(target - from, -most_down, most_up);
}

#endif
