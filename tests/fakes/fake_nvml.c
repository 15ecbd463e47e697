/* A libnvidia-ml.so.1 without a GPU, for the unmodified pynvml.
 *
 * What it answers stands in the file named by FAKE_NVML_CONFIG; see fake_power.h for its form. Besides
 * power profiles it has
 *
 *   gpus=2                          number of GPUs (0 without the line)
 *   0.uuid=GPU-...                  a value of GPU 0; likewise name, pci, energy_mj (without a profile), ...
 *   0.temperature=41>80@2.5         a number that changes 2.5 s after t0
 *   0.instances=2                   MIG instances; 0.mig=1 turns MIG mode on
 *
 * Compiled with -DOLD_DRIVER it lacks functions that came with later drivers.
 *
 * Types are those of nvml.h as far as these calls need them; sizes are asserted below.
 */
#define _GNU_SOURCE
#include "fake_power.h"

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;
typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    int valueType;
    nvmlReturn_t nvmlReturn;
    unsigned long long value;
} nvmlFieldValue_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } nvmlProcessInfo_t;

_Static_assert(sizeof(nvmlMemory_t) == 24, "nvmlMemory_t");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "nvmlMemory_v2_t");
_Static_assert(sizeof(nvmlPciInfo_t) == 68, "nvmlPciInfo_t");
_Static_assert(sizeof(nvmlFieldValue_t) == 40, "nvmlFieldValue_t");
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "nvmlProcessInfo_t");

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { VERSION_MISMATCH = 25 };
enum { FIRST_GPU = 0x1000, FIRST_INSTANCE = 0x2000, INSTANCES_PER_GPU = 16 };

static const char *VARIABLE = "FAKE_NVML_CONFIG";

static unsigned long long number(const char *key, unsigned long long otherwise) {
    char text[128];
    return lookup(VARIABLE, key, text, sizeof text) ? strtoull(text, NULL, 10) : otherwise;
}

static int is_instance(nvmlDevice_t handle) { return (size_t)handle >= FIRST_INSTANCE; }

static unsigned gpu_of(nvmlDevice_t handle) {
    size_t value = (size_t)handle;
    return (unsigned)(is_instance(handle) ? (value - FIRST_INSTANCE) / INSTANCES_PER_GPU : value - FIRST_GPU);
}

static unsigned instance_of(nvmlDevice_t handle) {
    return (unsigned)(((size_t)handle - FIRST_INSTANCE) % INSTANCES_PER_GPU);
}

/* Returns the text in a buffer that the next call overwrites. */
static const char *text_of(nvmlDevice_t handle, const char *name, const char *otherwise) {
    static char text[512];
    char key[128];
    snprintf(key, sizeof key, "%u.%s", gpu_of(handle), name);
    return lookup(VARIABLE, key, text, sizeof text) ? text : otherwise;
}

/* "41" is 41; "41>80@2.5" is 41, and 80 from 2.5 s on. */
static unsigned long long number_of(nvmlDevice_t handle, const char *name, unsigned long long otherwise) {
    char key[128], text[128], *rest;
    snprintf(key, sizeof key, "%u.%s", gpu_of(handle), name);
    if (!lookup(VARIABLE, key, text, sizeof text)) return otherwise;
    unsigned long long value = strtoull(text, &rest, 10);
    if (*rest != '>') return value;
    unsigned long long later = strtoull(rest + 1, &rest, 10);
    return *rest == '@' && profile_time(VARIABLE) >= strtod(rest + 1, NULL) ? later : value;
}

static nvmlReturn_t system_error(const char *call) { return fault(VARIABLE, -1, call); }

static nvmlReturn_t device_error(nvmlDevice_t handle, const char *call) {
    nvmlReturn_t failed = fault(VARIABLE, (int)gpu_of(handle), call);
    return failed ? failed : fault(VARIABLE, (int)gpu_of(handle), "*");
}

/* NVML's name of the function that reads power says nothing of what it averages; Ampere and later: 1 s. */
static double watts_of(nvmlDevice_t handle, int averaged) {
    double average_s = averaged ? real_of(VARIABLE, (int)gpu_of(handle), "average_ms", 1000) * 1e-3 : 0;
    return power_watts(VARIABLE, (int)gpu_of(handle), average_s);
}

#define SYSTEM_CALL() do { nvmlReturn_t failed = system_error(__func__); if (failed) return failed; } while (0)
#define DEVICE_CALL(handle) \
    do { nvmlReturn_t failed = device_error(handle, __func__); if (failed) return failed; } while (0)
#define GPU_ONLY(handle) do { if (is_instance(handle)) return NOT_SUPPORTED; } while (0)

nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; SYSTEM_CALL(); return SUCCESS; }
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(nvmlReturn_t code) {
    static char text[32];
    snprintf(text, sizeof text, "error %d of the fake", code);
    return text;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned size) {
    SYSTEM_CALL();
    snprintf(text, size, "575.57.08");
    return SUCCESS;
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *text, unsigned size) {
    SYSTEM_CALL();
    snprintf(text, size, "12.575.57.08");
    return SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { SYSTEM_CALL(); *version = 12090; return SUCCESS; }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    SYSTEM_CALL();
    *count = (unsigned)number("gpus", 0);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *handle) {
    SYSTEM_CALL();
    if (index >= number("gpus", 0)) return INVALID_ARGUMENT;
    *handle = (nvmlDevice_t)(size_t)(FIRST_GPU + index);
    DEVICE_CALL(*handle);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *text, unsigned size) {
    DEVICE_CALL(handle);
    snprintf(text, size, "%s", text_of(handle, "name", "NVIDIA H100 80GB HBM3"));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *text, unsigned size) {
    DEVICE_CALL(handle);
    const char *uuid = text_of(handle, "uuid", "GPU-00000000-0000-0000-0000-000000000000");
    if (is_instance(handle)) snprintf(text, size, "MIG-%u%s", instance_of(handle), uuid + strlen("GPU-") + 1);
    else snprintf(text, size, "%s", uuid);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *info) {
    DEVICE_CALL(handle);
    memset(info, 0, sizeof *info);
    info->pciDeviceId = 0x233010DE;
    snprintf(info->busId, sizeof info->busId, "%s", text_of(handle, "pci", "00000000:17:00.0"));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory) {
    DEVICE_CALL(handle);
    unsigned long long total = number_of(handle, "total", 85520809984ull);
    memory->total = total;
    memory->used = number_of(handle, "used", 8126464) + number_of(handle, "reserved", 956301312);
    memory->free = total - memory->used;
    return SUCCESS;
}

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory) {
    DEVICE_CALL(handle);
    if (memory->version != (sizeof *memory | 2u << 24)) return VERSION_MISMATCH;
    memory->total = number_of(handle, "total", 85520809984ull);
    memory->reserved = number_of(handle, "reserved", 956301312);
    memory->used = number_of(handle, "used", 8126464);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t handle, int *major, int *minor) {
    DEVICE_CALL(handle);
    *major = 9;
    *minor = 0;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned *current, unsigned *pending) {
    DEVICE_CALL(handle);
    *current = *pending = (unsigned)number_of(handle, "mig", 0);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned *count) {
    DEVICE_CALL(handle);
    *count = 7;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned index, nvmlDevice_t *instance) {
    DEVICE_CALL(handle);
    if (index >= number_of(handle, "instances", 0)) return NOT_FOUND;
    *instance = (nvmlDevice_t)(size_t)(FIRST_INSTANCE + gpu_of(handle) * INSTANCES_PER_GPU + index);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned *id) {
    DEVICE_CALL(handle);
    *id = 7 + instance_of(handle);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned *id) {
    DEVICE_CALL(handle);
    *id = 0;
    return SUCCESS;
}

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle, unsigned long long *millijoules) {
    DEVICE_CALL(handle);
    GPU_ONLY(handle);
    double joules = counter_joules(VARIABLE, (int)gpu_of(handle));
    *millijoules = isnan(joules) ? number_of(handle, "energy_mj", 123456789) : (unsigned long long)(joules * 1e3);
    return SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t handle, unsigned *current, unsigned *pending) {
    DEVICE_CALL(handle);
    *current = *pending = 1;
    return SUCCESS;
}

/* Fields 185 and 186 are averaged and instantaneous power; "0.error.field186=3" takes one away although the
 * call succeeds. Scope 1 (module) exists only where "0.module=1" says so. */
#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, nvmlFieldValue_t *values) {
    DEVICE_CALL(handle);
    int has_module = (int)number_of(handle, "module", 0);
    for (int at = 0; at < count; at++) {
        char name[32];
        snprintf(name, sizeof name, "field%u", values[at].fieldId);
        if (values[at].fieldId == 90) {
            values[at].nvmlReturn = SUCCESS;
            values[at].value = 26562;
            continue;
        }
        int known = values[at].fieldId == 186 || values[at].fieldId == 185;
        known = known && (values[at].scopeId == 0 || (values[at].scopeId == 1 && has_module));
        known = known && !is_instance(handle) && !device_error(handle, name);
        double watts = watts_of(handle, values[at].fieldId == 185);
        values[at].nvmlReturn = known ? SUCCESS : NOT_SUPPORTED;
        values[at].valueType = 1;
        values[at].value = !known ? 0 : isnan(watts) ? 70000 : (unsigned)lround(watts * 1e3);
    }
    return SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned *milliwatts) {
    DEVICE_CALL(handle);
    GPU_ONLY(handle);
    double watts = watts_of(handle, number_of(handle, "architecture", 9) > 6);
    *milliwatts = (unsigned)(isnan(watts) ? (double)number_of(handle, "power_mw", 70000) : lround(watts * 1e3));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, int kind, int since, unsigned long long *errors) {
    (void)kind;
    (void)since;
    DEVICE_CALL(handle);
    *errors = number_of(handle, "ecc_errors", 0);
    return SUCCESS;
}

#define NUMBER_CALL(call, name, otherwise) \
    nvmlReturn_t call(nvmlDevice_t handle, unsigned *value) { \
        DEVICE_CALL(handle); \
        GPU_ONLY(handle); \
        *value = (unsigned)number_of(handle, name, otherwise); \
        return SUCCESS; \
    }
#define NUMBER_CALL_OF_KIND(call, name, otherwise) \
    nvmlReturn_t call(nvmlDevice_t handle, unsigned kind, unsigned *value) { \
        (void)kind; \
        DEVICE_CALL(handle); \
        *value = (unsigned)number_of(handle, name, otherwise); \
        return SUCCESS; \
    }

NUMBER_CALL(nvmlDeviceGetPowerManagementLimit, "limit_mw", 700000)
NUMBER_CALL(nvmlDeviceGetPowerManagementDefaultLimit, "default_limit_mw", 700000)
NUMBER_CALL(nvmlDeviceGetArchitecture, "architecture", 9)
NUMBER_CALL(nvmlDeviceGetEnforcedPowerLimit, "limit_mw", 700000)
NUMBER_CALL(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation", 5)
NUMBER_CALL(nvmlDeviceGetMaxPcieLinkWidth, "max_pcie_lanes", 16)
NUMBER_CALL(nvmlDeviceGetCurrPcieLinkWidth, "pcie_lanes", 16)
NUMBER_CALL(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation_now", 5)
NUMBER_CALL_OF_KIND(nvmlDeviceGetClockInfo, "clock_mhz", 1755)
NUMBER_CALL_OF_KIND(nvmlDeviceGetMaxClockInfo, "max_clock_mhz", 1980)
NUMBER_CALL_OF_KIND(nvmlDeviceGetTemperature, "temperature", 41)

nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t handle, unsigned long long *mode) {
    DEVICE_CALL(handle);
    *mode = number_of(handle, "virtualisation", 0);
    return SUCCESS;
}

/* Links go round: with "0.nvlink_peers=1,2" the first link of GPU 0 ends at GPU 1, the second at GPU 2, the third
 * at GPU 1, ... ("switch" instead of the numbers: all at switches). */
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t handle, unsigned link, unsigned *active) {
    DEVICE_CALL(handle);
    GPU_ONLY(handle);
    if (link >= 18) return INVALID_ARGUMENT;
    *active = link < number_of(handle, "nvlinks", 0);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t handle, unsigned link, unsigned *version) {
    (void)link;
    DEVICE_CALL(handle);
    *version = 6;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t handle, unsigned link, int *type) {
    (void)link;
    DEVICE_CALL(handle);
    *type = strcmp(text_of(handle, "nvlink_peers", "switch"), "switch") ? 0 : 2;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t handle, unsigned link, nvmlPciInfo_t *info) {
    DEVICE_CALL(handle);
    int peers[INSTANCES_PER_GPU], count = 0;
    char text[512];
    snprintf(text, sizeof text, "%s", text_of(handle, "nvlink_peers", ""));
    for (char *rest = text, *one; (one = strsep(&rest, ",")) && count < INSTANCES_PER_GPU;) peers[count++] = atoi(one);
    memset(info, 0, sizeof *info);
    nvmlDevice_t peer = (nvmlDevice_t)(size_t)(FIRST_GPU + peers[(int)link % count]);
    snprintf(info->busId, sizeof info->busId, "%s", text_of(peer, "pci", ""));
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t handle, nvmlDevice_t other, int *level) {
    DEVICE_CALL(handle);
    DEVICE_CALL(other);
    *level = (int)number("topology", 10);
    return SUCCESS;
}

/* The name before R535; drivers that old have no ...EventReasons. */
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t handle, unsigned long long *reasons) {
    DEVICE_CALL(handle);
    *reasons = number_of(handle, "throttle", 1);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t handle, unsigned *count, nvmlProcessInfo_t *found) {
    DEVICE_CALL(handle);
    unsigned running = (unsigned)number_of(handle, "processes", 0), room = *count;
    *count = running;
    if (running > room) return INSUFFICIENT_SIZE;
    for (unsigned at = 0; found && at < running; at++) found[at] = (nvmlProcessInfo_t){1000 + at, 1 << 20, 0, 0};
    return SUCCESS;
}
