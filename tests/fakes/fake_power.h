/* What the fake vendor libraries share: a configuration that may change at any time, a power profile over
 * CLOCK_MONOTONIC, and faults that begin and end at chosen moments.
 *
 * The configuration is a file of KEY=VALUE lines, named by an environment variable, and read again
 * whenever it changes. Keys of a device begin with its number and a dot:
 *
 *   t0=1234.5                  CLOCK_MONOTONIC (s) that the times below count from
 *   0.profile=0:70,1.5:690     from 0 s on 70 W, from 1.5 s on 690 W
 *   0.update_ms=100            the sensor has a new value that often; 0.jitter=0.02 moves each tick by 2 %
 *   0.average_ms=1000          averaged power is the mean of so long
 *   0.duty=0.25                only the last quarter of each period is seen, and taken for the whole
 *   0.gain=1.03  0.base_j=5e6  the counter is 3 % too fast and began at 5 MJ
 *   0.reset_at=2               the counter begins again at 0
 *   0.back_at=2  0.back_j=200  it steps back once
 *   0.stuck_at=2               it never changes any more
 *   0.error.<function>=15@2:3  the function fails with 15 between 2 s and 3 s ("0.error.*": all functions;
 *                              "error.<function>": whatever the device; without "@": always)
 */
#pragma once
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINES = 512, MAX_SEGMENTS = 4096, MAX_DEVICES = 32 };

typedef struct {
    int count;
    double start[MAX_SEGMENTS], watts[MAX_SEGMENTS], joules[MAX_SEGMENTS];
} profile_t;

static struct {
    char *text, *key[MAX_LINES], *value[MAX_LINES];
    int lines;
    struct stat seen;
    profile_t *profile[MAX_DEVICES];
} config;
static pthread_mutex_t config_lock = PTHREAD_MUTEX_INITIALIZER;

static const char *lookup_loaded(const char *key) {
    for (int at = 0; at < config.lines; at++)
        if (!strcmp(config.key[at], key)) return config.value[at];
    return NULL;
}

static profile_t *parse_profile(const char *text) {
    profile_t *profile = calloc(1, sizeof *profile);
    for (char *next; *text && profile->count < MAX_SEGMENTS; text = *next ? next + 1 : next) {
        int at = profile->count++;
        profile->start[at] = strtod(text, &next);
        profile->watts[at] = *next == ':' ? strtod(next + 1, &next) : 0;
        profile->joules[at] =
            at ? profile->joules[at - 1] + profile->watts[at - 1] * (profile->start[at] - profile->start[at - 1]) : 0;
    }
    return profile;
}

/* Reads the file named by the environment variable again if it is not the one that was read last. */
static void load_config(const char *variable) {
#ifdef CONFIG_NEVER_CHANGES
    /* For measuring what a reader costs: a system call for every key would be most of it. */
    if (config.text) return;
#endif
    const char *path = getenv(variable);
    struct stat now;
    if (!path || stat(path, &now)) return;
    if (config.text && now.st_ino == config.seen.st_ino && now.st_size == config.seen.st_size &&
        now.st_mtim.tv_sec == config.seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == config.seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    config.seen = now;
    free(config.text);
    config.text = calloc(1, (size_t)now.st_size + 1);
    if (fread(config.text, 1, (size_t)now.st_size, file) == 0) config.text[0] = 0;
    fclose(file);
    config.lines = 0;
    for (char *rest = config.text, *line; (line = strsep(&rest, "\n")) && config.lines < MAX_LINES;) {
        char *equals = strchr(line, '=');
        if (!equals) continue;
        *equals = 0;
        config.key[config.lines] = line;
        config.value[config.lines++] = equals + 1;
    }
    for (int device = 0; device < MAX_DEVICES; device++) {
        char key[32];
        snprintf(key, sizeof key, "%d.profile", device);
        const char *text = lookup_loaded(key);
        free(config.profile[device]);
        config.profile[device] = text ? parse_profile(text) : NULL;
    }
}

/* Copies the value of a key; returns whether there is one. */
static int lookup(const char *variable, const char *key, char *value, size_t size) {
    pthread_mutex_lock(&config_lock);
    load_config(variable);
    const char *found = lookup_loaded(key);
    if (found) snprintf(value, size, "%s", found);
    pthread_mutex_unlock(&config_lock);
    return found != NULL;
}

static double real_of(const char *variable, int device, const char *name, double otherwise) {
    char key[128], text[64];
    if (device < 0) snprintf(key, sizeof key, "%s", name);
    else snprintf(key, sizeof key, "%d.%s", device, name);
    return lookup(variable, key, text, sizeof text) ? strtod(text, NULL) : otherwise;
}

/* CLOCK_MONOTONIC, or the time that a test keeps as a double in the file named by FAKE_CLOCK. */
static double now_s(void) {
    static const volatile double *kept;
    const char *path = getenv("FAKE_CLOCK");
    if (path && !kept) {
        int file = open(path, O_RDONLY);
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *kept, PROT_READ, MAP_SHARED, file, 0);
        if (mapped == MAP_FAILED) abort();
        close(file);
        kept = mapped;
    }
    if (kept) return *kept;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds since t0. */
static double profile_time(const char *variable) { return now_s() - real_of(variable, -1, "t0", 0); }

/* Code of the fault "error.<function>" that is on now, or 0. */
static int fault(const char *variable, int device, const char *function) {
    char key[128], text[64];
    if (device < 0) snprintf(key, sizeof key, "error.%s", function);
    else snprintf(key, sizeof key, "%d.error.%s", device, function);
    if (!lookup(variable, key, text, sizeof text)) return 0;
    char *next;
    int code = (int)strtol(text, &next, 10);
    if (*next != '@') return code;
    double time = profile_time(variable), on = strtod(next + 1, &next);
    double off = *next == ':' ? strtod(next + 1, NULL) : INFINITY;
    return time >= on && time < off ? code : 0;
}

static int segment_at(const profile_t *profile, double time) {
    int low = 0, high = profile->count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (profile->start[middle] <= time) low = middle;
        else high = middle;
    }
    return low;
}

/* Energy since the beginning of the profile; before it the first power holds. */
static double joules_at(const profile_t *profile, double time) {
    int at = segment_at(profile, time);
    return profile->joules[at] + profile->watts[at] * (time - profile->start[at]);
}

/* Moment of the last new value before `time`. */
static double last_tick(const char *variable, int device, double time) {
    double period = real_of(variable, device, "update_ms", 100) * 1e-3;
    double jitter = real_of(variable, device, "jitter", 0);
    double stuck = real_of(variable, device, "stuck_at", INFINITY);
    if (time > stuck) time = stuck;
    if (period <= 0) return time;
    for (double number = floor(time / period) + 1;; number--) {
        double noise = fmod(fabs(sin(number * 12.9898) * 43758.5453), 1.0) * 2 - 1;
        double moment = (number + jitter * noise) * period;
        if (moment <= time) return moment;
    }
}

/* What the energy counter of a device shows, in joules; NAN without a profile. */
static double counter_joules(const char *variable, int device) {
    double time = last_tick(variable, device, profile_time(variable));
    double period = real_of(variable, device, "update_ms", 100) * 1e-3;
    double duty = real_of(variable, device, "duty", 1);
    double gain = real_of(variable, device, "gain", 1), base = real_of(variable, device, "base_j", 5e6);
    double reset = real_of(variable, device, "reset_at", INFINITY);
    double back = real_of(variable, device, "back_at", INFINITY);
    double back_j = real_of(variable, device, "back_j", 0), joules = 0;
    pthread_mutex_lock(&config_lock);
    const profile_t *profile = device >= 0 && device < MAX_DEVICES ? config.profile[device] : NULL;
    if (!profile) joules = NAN;
    else if (duty >= 1 || period <= 0) joules = joules_at(profile, time);
    else
        for (double from = 0; from < time - period / 2; from += period)
            joules += (joules_at(profile, from + period) - joules_at(profile, from + period * (1 - duty))) / duty;
    if (profile && time >= reset) joules -= joules_at(profile, reset), base = 0;
    pthread_mutex_unlock(&config_lock);
    if (time >= back) joules -= back_j;
    return base + joules * gain;
}

/* What the power sensor of a device shows, in watts: the mean of the last `average_s`, or the moment's. */
static double power_watts(const char *variable, int device, double average_s) {
    double time = last_tick(variable, device, profile_time(variable)), watts = NAN;
    pthread_mutex_lock(&config_lock);
    const profile_t *profile = device >= 0 && device < MAX_DEVICES ? config.profile[device] : NULL;
    if (profile && average_s > 0)
        watts = (joules_at(profile, time) - joules_at(profile, time - average_s)) / average_s;
    else if (profile) watts = profile->watts[segment_at(profile, time)];
    pthread_mutex_unlock(&config_lock);
    return watts;
}

/* A caller can ask a library whether anything real stands behind it. */
int aiprof_simulated(void) { return 1; }
