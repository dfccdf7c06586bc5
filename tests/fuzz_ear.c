/* Any sound, any profile, any packet size through the ear, for a build with the sanitizers:
 *
 *   cc -std=c11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
 *      -Isipbridge/relay_core tests/fuzz_ear.c sipbridge/relay_core/ear.c \
 *      sipbridge/relay_core/ear_shock.c sipbridge/relay_core/ear_output.c -lm -o fuzz_ear
 *   ./fuzz_ear 1000000 7        (packets, seed)
 *
 * Exits with 1 and a line when a sample is above the ceiling, "changed" is not what was returned, a
 * gain or level is not a number, or the dose is impossible.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ear.h"

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20) % below;
}

static void any_profile(struct ear_profile *profile)
{
    ear_profile_default(profile);
    for (size_t i = 0; i < ear_profile_field_count; i++) {
        const struct ear_profile_field *field = &ear_profile_fields[i];
        float value = field->low + (field->high - field->low) * (float)draw(1001) / 1000.0f;
        if (draw(3))
            continue;
        if (!draw(50))
            value = draw(2) ? NAN : draw(2) ? 1e30f : -1e30f;
        memcpy((char *)profile + field->offset, &value, sizeof value);
    }
}

static void any_sound(int16_t *samples, int n)
{
    const uint32_t kind = draw(9), period = 1 + draw(100);
    const int amplitude = draw(3) ? 32767 : (int)draw(32768);
    for (int i = 0; i < n; i++) {
        int value = 0;
        switch (kind) {
        case 0: value = (int)draw(65536) - 32768; break;
        case 1: value = ((uint32_t)i / period) % 2 ? 32767 : -32768; break;
        case 2: value = 32767; break;
        case 3: value = -32768; break;
        case 4: value = 0; break;
        case 5: value = (int)(amplitude * sin(i * 0.01 * period)); break;
        case 6: value = draw(100) ? 0 : draw(2) ? 32767 : -32768; break;
        case 7: value = (int)draw(2 * (uint32_t)amplitude + 1) - amplitude; break;
        default: value = (int)draw(7) - 3;
        }
        samples[i] = (int16_t)value;
    }
}

static int fail(const char *what, long packet)
{
    printf("packet %ld: %s\n", packet, what);
    return 1;
}

int main(int count, char **words)
{
    const long packets = count > 1 ? atol(words[1]) : 100000;
    state = 88172645463325252u + (count > 2 ? strtoull(words[2], NULL, 10) : 0);
    struct ear_profile profile;
    struct ear ear;
    ear_profile_default(&profile);
    ear_init(&ear, &profile);
    for (long packet = 0; packet < packets; packet++) {
        if (packet % 500 == 499) {
            any_profile(&profile);
            ear_init(&ear, &profile);
        }
        if (!draw(40))
            ear_set(&ear, (int)draw(2), (int)draw(2));
        if (!draw(400))
            ear_reset(&ear);
        const int n = 1 + (int)draw(draw(20) ? 480 : 1500);
        /* Of exactly this size on the heap: a byte too far is seen. */
        int16_t *samples = malloc((size_t)n * sizeof *samples);
        int16_t *before = malloc((size_t)n * sizeof *before);
        if (!samples || !before)
            return fail("no memory", packet);
        any_sound(samples, n);
        memcpy(before, samples, (size_t)n * sizeof *before);
        const int changed = ear_process(&ear, samples, n);
        if (changed != (memcmp(before, samples, (size_t)n * sizeof *before) != 0))
            return fail("changed or not is not what was said", packet);
        const float ceiling = 32768.0f * powf(10.0f, ear.profile.limit_peak_dbfs / 20.0f);
        for (int i = 0; i < n; i++)
            if (abs(samples[i]) > ceiling)
                return fail("a sample is above the ceiling", packet);
        const float levels[] = {ear.gain, ear.limiter_gain, ear.smooth_power, ear.talker_power,
                                ear.calm_db, ear.soften_db, ear.rms_power, ear.agc_db,
                                ear.expander_db, ear.tone_db, ear.burst_db, ear.usual_db,
                                ear.weighting_out[0], ear.weighting_out[2], ear.tilt_state};
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
            if (!isfinite(levels[i]))
                return fail("a level is not a number", packet);
        if (packet % 97 == 0) {
            double sum;
            uint64_t heard;
            ear_take_dose(&ear, &sum, &heard);
            if (!isfinite(sum) || sum < 0.0 || sum > 4.0 * (double)heard)
                return fail("an impossible dose", packet);
        }
        free(samples);
        free(before);
    }
    printf("%ld packets, nothing found\n", packets);
    return 0;
}
