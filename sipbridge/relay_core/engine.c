/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "engine.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    READY_AT_ONCE = 64, /* packets served before Python may change a flow: 0.4 ms of them */
    MANY_SESSIONS = 50, /* calls; with fewer, resting costs more than it saves */
    REST = 500000,      /* ns */
    TAP_SEND_BUFFER = 4 * 1024 * 1024,
};
/* What an epoll event carries: a session's handle, a leg, RTP or RTCP; or one of these. */
#define FROM_TIMER UINT64_MAX
#define FROM_STOP (UINT64_MAX - 1)

struct engine {
    struct core *core;
    int epoll_fd, timer_fd, stop_fd, event_fd, tap_fd;
    pthread_t thread;
    bool running;
    const char *scheduling;
    struct sockaddr_un tap_at;
};

static ns_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (ns_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* ------------------------------------------------------------------------------- output */

static int send_out(struct core *core, struct session *s, struct leg *leg, bool rtcp,
                    const uint8_t *packet, size_t size, const struct endpoint *to) {
    (void)core;
    (void)s;
    int fd = rtcp ? leg->rtcp_fd : leg->rtp_fd;
    return sendto(fd, packet, size, MSG_DONTWAIT, &to->at.any, to->size) < 0 ? errno : 0;
}

static bool tap_connect(struct engine *e) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    int room = TAP_SEND_BUFFER; /* the kernel grants up to net.core.wmem_max */
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (connect(fd, (struct sockaddr *)&e->tap_at, sizeof e->tap_at) != 0) {
        close(fd);
        return false;
    }
    e->tap_fd = fd;
    return true;
}

static int tap_out(struct core *core, const uint8_t *datagram, size_t size) {
    struct engine *e = core->engine;
    for (int tried = 0; tried < 2; tried++) {
        if (e->tap_fd < 0 && !tap_connect(e)) return 0;
        if (send(e->tap_fd, datagram, size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 1;
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return -1;
        /* The detector died; perhaps another one listens at the same path already. */
        close(e->tap_fd);
        e->tap_fd = -1;
    }
    return 0;
}

static void wake(struct core *core) {
    uint64_t one = 1;
    ssize_t ignored = write(((struct engine *)core->engine)->event_fd, &one, sizeof one);
    (void)ignored; /* full: it is readable already */
}

/* -------------------------------------------------------------------------------- thread */

static void receive(struct engine *e, uint64_t what, ns_t now) {
    struct session *s = session_find(e->core, (uint32_t)(what >> 8));
    if (!s) return;
    struct leg *leg = &s->leg[(what >> 1) & 3];
    bool rtcp = what & 1;
    if (!leg->open) return;
    PACKET_BUFFER(packet);
    struct endpoint from = {.size = sizeof from.at};
    ssize_t size = recvfrom(rtcp ? leg->rtcp_fd : leg->rtp_fd, packet, sizeof packet, MSG_DONTWAIT,
                            &from.at.any, &from.size);
    /* An error is one of an earlier send (ECONNREFUSED): read, and so forgotten. */
    if (size < 0) return;
    if (rtcp) {
        relay_receive_rtcp(e->core, s, leg, packet, (size_t)size, &from, now,
                           clock_ns(CLOCK_REALTIME));
    } else {
        relay_receive(e->core, s, leg, packet, (size_t)size, &from, now);
    }
}

/* With many calls a packet comes every few microseconds, and waking up for each one costs as much
 * as relaying it: rest for half a millisecond, then serve what has come. */
static void rest(void) {
    struct timespec pause = {.tv_nsec = REST};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

static void *serve(void *given) {
    struct engine *e = given;
    struct epoll_event ready[READY_AT_ONCE];
    bool many = false;
    for (;;) {
        if (many) rest();
        int count = epoll_wait(e->epoll_fd, ready, READY_AT_ONCE, -1);
        if (count < 0 && errno != EINTR) return NULL;
        pthread_mutex_lock(&e->core->lock);
        for (int i = 0; i < count; i++) {
            ns_t now = clock_ns(CLOCK_MONOTONIC);
            if (ready[i].data.u64 == FROM_STOP) {
                tap_flush(e->core, now);
                pthread_mutex_unlock(&e->core->lock);
                return NULL;
            }
            if (ready[i].data.u64 == FROM_TIMER) {
                uint64_t ticks = 0;
                if (read(e->timer_fd, &ticks, sizeof ticks) == sizeof ticks && ticks > 1) {
                    e->core->late_ticks += ticks - 1;
                }
                relay_tick(e->core, now, clock_ns(CLOCK_REALTIME));
            } else {
                receive(e, ready[i].data.u64, now);
            }
        }
        many = e->core->sessions >= MANY_SESSIONS && count < READY_AT_ONCE;
        pthread_mutex_unlock(&e->core->lock);
    }
}

/* --------------------------------------------------------------------------------- set-up */

static int watch(struct engine *e, int operation, int fd, uint64_t what) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = what};
    return epoll_ctl(e->epoll_fd, operation, fd, &event) == 0 ? 0 : errno;
}

int engine_watch(struct engine *e, const struct session *s, const struct leg *leg, bool again) {
    uint64_t what = (uint64_t)s->handle << 8 | (uint64_t)leg->name << 1;
    int operation = again ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int error = watch(e, operation, leg->rtp_fd, what);
    return error ? error : watch(e, operation, leg->rtcp_fd, what | 1);
}

void engine_unwatch(struct engine *e, const struct leg *leg) {
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, leg->rtp_fd, NULL);
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, leg->rtcp_fd, NULL);
}

struct engine *engine_new(struct core *core, const char *tap_path) {
    struct engine *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->core = core;
    e->tap_fd = -1;
    e->scheduling = "ordinary";
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    e->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->tap_at.sun_family = AF_UNIX;
    strncpy(e->tap_at.sun_path, tap_path, sizeof e->tap_at.sun_path - 1);
    /* The n-th tick keeps to t0 + n * 10 ms, however late the others were. */
    struct itimerspec pace = {.it_interval.tv_nsec = TICK, .it_value.tv_nsec = TICK};
    if (e->epoll_fd < 0 || e->timer_fd < 0 || e->stop_fd < 0 || e->event_fd < 0 ||
        watch(e, EPOLL_CTL_ADD, e->timer_fd, FROM_TIMER) ||
        watch(e, EPOLL_CTL_ADD, e->stop_fd, FROM_STOP) ||
        timerfd_settime(e->timer_fd, 0, &pace, NULL) != 0) {
        int error = errno;
        engine_free(e);
        errno = error;
        return NULL;
    }
    core->engine = e;
    core->output = send_out;
    core->tap_send = tap_out;
    core->wake = wake;
    return e;
}

/* Audio first: this thread before everything else on the machine. The kernel keeps 5 % of each
 * core for others even from real time (sched_rt_runtime_us). */
static void become_urgent(struct engine *e, int priority) {
    struct sched_param wanted = {.sched_priority = priority};
    if (priority && pthread_setschedparam(e->thread, SCHED_RR, &wanted) == 0) {
        e->scheduling = "realtime";
    } else {
        e->scheduling = "ordinary";
    }
}

int engine_start(struct engine *e, int priority) {
    if (e->running) return EALREADY;
    int error = pthread_create(&e->thread, NULL, serve, e);
    e->running = error == 0;
    if (!error) {
        become_urgent(e, priority);
        pthread_setname_np(e->thread, "relay"); /* for top -H and the benchmark */
    }
    return error;
}

void engine_stop(struct engine *e) {
    if (!e->running) return;
    uint64_t one = 1;
    while (write(e->stop_fd, &one, sizeof one) < 0 && errno == EINTR) {}
    pthread_join(e->thread, NULL);
    e->running = false;
    /* Another start must not find it. */
    while (read(e->stop_fd, &one, sizeof one) < 0 && errno == EINTR) {}
}

void engine_free(struct engine *e) {
    if (!e) return;
    engine_stop(e);
    int descriptors[] = {e->epoll_fd, e->timer_fd, e->stop_fd, e->event_fd, e->tap_fd};
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
        if (descriptors[i] >= 0) close(descriptors[i]);
    }
    free(e);
}

const char *engine_scheduling(const struct engine *e) { return e->scheduling; }
int engine_event_fd(const struct engine *e) { return e->event_fd; }

void engine_calm(struct engine *e) {
    uint64_t count;
    while (read(e->event_fd, &count, sizeof count) < 0 && errno == EINTR) {}
}
