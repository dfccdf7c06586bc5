/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What leaves the relay for other parts of Callshield: the tap's batches (callshield/tap.py has
 * the layout), the recorder's frames, events. None of it is waited for; each has a bound.
 */
#include <stdlib.h>

#include "relay.h"

enum { TAP_HEADER = 16, TAP_RECORD = 32, RECORD_HEADER = 32 };

static void put_le16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static void put_le32(uint8_t *p, uint32_t v) { put_le16(p, v); put_le16(p + 2, v >> 16); }
static void put_le64(uint8_t *p, uint64_t v) {
    put_le32(p, (uint32_t)v);
    put_le32(p + 4, (uint32_t)(v >> 32));
}

/* ----------------------------------------------------------------------------------- tap */

static void account(struct core *core, const struct tap_batch *batch, bool sent) {
    *(sent ? &core->tapped : &core->tap_dropped) += (uint64_t)batch->audio;
    for (int i = 0; i < batch->audio; i++) {
        struct session *s = session_find(core, batch->owner[i]);
        if (!s) continue;
        if (!sent) {
            s->tap_dropped++;
            continue;
        }
        s->tapped++;
        if (!s->tap_announced) {
            s->tap_announced = true;
            struct event event = {.kind = EVENT_TAP_STARTED, .handle = s->handle, .leg = CALLER};
            event_add(core, &event);
        }
    }
}

/* True when the batch is done with, sent or not. */
static bool try_send(struct core *core, const struct tap_batch *batch) {
    int sent = core->tap_send(core, batch->data, batch->size);
    if (sent < 0) return false;
    account(core, batch, sent > 0);
    return true;
}

static void seal(struct core *core, ns_t now) {
    struct tap_batch *batch = &core->batch;
    if (!batch->records) return;
    memcpy(batch->data, "CSTP\1\0", 6);
    put_le16(batch->data + 6, (uint32_t)batch->records);
    put_le64(batch->data + 8, (uint64_t)now);
    if (core->backlog_count || !try_send(core, batch)) {
        if (core->backlog_count == TAP_BACKLOG) {
            /* The newest second is worth more than an old one. */
            account(core, &core->backlog[core->backlog_first], false);
            core->backlog_first = (core->backlog_first + 1) % TAP_BACKLOG;
            core->backlog_count--;
        }
        int last = (core->backlog_first + core->backlog_count++) % TAP_BACKLOG;
        struct tap_batch *kept = &core->backlog[last];
        if (!kept->data) {
            kept->data = malloc(TAP_LONGEST);
            kept->owner = malloc(TAP_RECORDS * sizeof *kept->owner);
        }
        if (!kept->data || !kept->owner) {
            core->backlog_count--;
            account(core, batch, false);
        } else {
            struct tap_batch full = *batch;
            *batch = *kept;
            *kept = full;
        }
    }
    batch->size = TAP_HEADER;
    batch->records = batch->audio = 0;
}

void tap_add(struct core *core, struct session *s, int kind, int codec, bool echo,
             uint16_t sequence, uint32_t timestamp, const uint8_t *payload, size_t size, ns_t now) {
    struct tap_batch *batch = &core->batch;
    if (batch->size + TAP_RECORD + size > TAP_LONGEST || batch->records == TAP_RECORDS) {
        seal(core, now);
    }
    uint8_t *at = batch->data + batch->size;
    memcpy(at, s->id, CALL_ID);
    at[16] = (uint8_t)kind;
    at[17] = (uint8_t)codec;
    put_le16(at + 18, (uint32_t)size);
    put_le16(at + 20, sequence);
    put_le16(at + 22, echo);
    put_le32(at + 24, timestamp);
    put_le32(at + 28, (uint32_t)(now / MS));
    if (size) memcpy(at + TAP_RECORD, payload, size);
    batch->size += TAP_RECORD + size;
    batch->records++;
    if (kind == 0) batch->owner[batch->audio++] = s->handle;
}

void tap_flush(struct core *core, ns_t now) {
    while (core->backlog_count) {
        if (!try_send(core, &core->backlog[core->backlog_first])) break;
        core->backlog_first = (core->backlog_first + 1) % TAP_BACKLOG;
        core->backlog_count--;
    }
    seal(core, now);
}

/* ------------------------------------------------------------------------------ recorder */

void record_add(struct core *core, struct session *s, int channel, int codec, uint32_t timestamp,
                const uint8_t *payload, size_t size, ns_t realtime) {
    size_t length = RECORD_HEADER + size;
    struct record_block *block = core->record_last;
    if (!block || block->used + length > RECORD_BLOCK) {
        /* The oldest frames are already whole chunks of a file's future: drop the newest. */
        block = core->record_bytes + RECORD_BLOCK <= core->record_limit ? malloc(sizeof *block) : NULL;
        if (!block) {
            core->record_dropped++;
            s->record_dropped++;
            return;
        }
        block->next = NULL;
        block->used = 0;
        if (core->record_last) core->record_last->next = block;
        else core->record_first = block;
        core->record_last = block;
    }
    uint8_t *at = block->data + block->used;
    memcpy(at, s->id, CALL_ID);
    at[16] = (uint8_t)channel;
    at[17] = (uint8_t)codec;
    put_le16(at + 18, (uint32_t)size);
    put_le32(at + 20, timestamp);
    put_le64(at + 24, (uint64_t)realtime);
    memcpy(at + RECORD_HEADER, payload, size);
    block->used += length;
    core->record_bytes += length;
    s->recorded++;
}

/* -------------------------------------------------------------------------------- events */

void event_add(struct core *core, const struct event *event) {
    if (core->event_count == core->event_room) {
        int room = core->event_room ? core->event_room * 2 : 64;
        struct event *grown =
            room <= MAX_EVENTS ? realloc(core->events, (size_t)room * sizeof *grown) : NULL;
        if (!grown) {
            core->events_dropped++;
            return;
        }
        core->events = grown;
        core->event_room = room;
    }
    core->events[core->event_count++] = *event;
    if (core->event_count == 1 && core->wake) core->wake(core);
}
