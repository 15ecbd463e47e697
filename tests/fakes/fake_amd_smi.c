/* A libamd_smi.so without a GPU, with the struct layouts of amdsmi 7.0. The configuration is in the file named
 * by FAKE_AMDSMI_CONFIG (see fake_power.h), with gpus=N and N.pci=0000:c1:00.0.
 *
 * The unmodified package binds every function when it is imported; what is not here comes from a generated
 * file of functions that answer NOT_SUPPORTED (benchmarks/energy_truth.py makes it from the installed package).
 */
#define _GNU_SOURCE
#include "fake_power.h"
#include <stdint.h>

static const char *VARIABLE = "FAKE_AMDSMI_CONFIG";
typedef void *handle_t;
typedef struct {
    uint64_t socket_power;
    uint32_t current_socket_power, average_socket_power;
    uint64_t gfx_voltage, soc_voltage, mem_voltage;
    uint32_t power_limit;
    uint64_t reserved[18];
} amdsmi_power_info_t;
typedef struct {
    uint32_t drm_render, drm_card, hsa_id, hip_id;
    char hip_uuid[256];
} amdsmi_enumeration_info_t;
typedef struct {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[256];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[256];
    uint32_t oam_id, num_of_compute_units;
    uint64_t target_graphics_version;
    uint32_t subsystem_id, reserved[21];
} amdsmi_asic_info_t;
_Static_assert(sizeof(amdsmi_power_info_t) == 192, "amdsmi_power_info_t");
_Static_assert(sizeof(amdsmi_enumeration_info_t) == 272, "amdsmi_enumeration_info_t");

enum { INVALID = 1, NOT_INITIALISED = 32, FIRST_SOCKET = 0x4000, FIRST_GPU = 0x5000 };
static int initialised;

static int gpus(void) { return (int)real_of(VARIABLE, -1, "gpus", 0); }
static int device_of(handle_t handle) {
    long number = (long)handle - FIRST_GPU;
    return number >= 0 && number < gpus() ? (int)number : -1;
}
static int refusal(handle_t handle, const char *function) {
    if (!initialised) return NOT_INITIALISED;
    int device = device_of(handle);
    return device < 0 ? INVALID : fault(VARIABLE, device, function);
}
#define CALL(handle) do { int refused = refusal(handle, __func__); if (refused) return refused; } while (0)

int amdsmi_init(uint64_t flags) {
    (void)flags;
    int refused = fault(VARIABLE, -1, __func__);
    if (!refused) initialised = 1;
    return refused;
}

int amdsmi_shut_down(void) { return 0; }

int amdsmi_status_code_to_string(int code, const char **text) {
    *text = code == 2 ? "AMDSMI_STATUS_NOT_SUPPORTED" : code == 10 ? "AMDSMI_STATUS_NO_PERM" : "AMDSMI_STATUS_UNKNOWN";
    return 0;
}

int amdsmi_get_socket_handles(uint32_t *count, handle_t *sockets) {
    if (!initialised) return NOT_INITIALISED;
    if (sockets)
        for (uint32_t at = 0; at < *count && (int)at < gpus(); at++) sockets[at] = (handle_t)(long)(FIRST_SOCKET + at);
    *count = (uint32_t)gpus();
    return 0;
}

int amdsmi_get_processor_handles(handle_t socket, uint32_t *count, handle_t *processors) {
    if (!initialised) return NOT_INITIALISED;
    if (processors) processors[0] = (handle_t)((long)socket - FIRST_SOCKET + FIRST_GPU);
    *count = 1;
    return 0;
}

int amdsmi_get_processor_type(handle_t handle, uint32_t *type) {
    CALL(handle);
    *type = 1;
    return 0;
}

int amdsmi_get_gpu_device_bdf(handle_t handle, uint64_t *bdf) {
    CALL(handle);
    char key[32], text[64] = "0000:c1:00.0";
    unsigned domain = 0, bus = 0, device = 0, function = 0;
    snprintf(key, sizeof key, "%d.pci", device_of(handle));
    lookup(VARIABLE, key, text, sizeof text);
    sscanf(text, "%x:%x:%x.%x", &domain, &bus, &device, &function);
    *bdf = function | device << 3 | bus << 8 | (uint64_t)domain << 16;
    return 0;
}

int amdsmi_get_gpu_enumeration_info(handle_t handle, amdsmi_enumeration_info_t *info) {
    CALL(handle);
    memset(info, 0, sizeof *info);
    info->hip_id = (uint32_t)device_of(handle);
    return 0;
}

int amdsmi_get_gpu_asic_info(handle_t handle, amdsmi_asic_info_t *info) {
    CALL(handle);
    memset(info, 0, sizeof *info);
    snprintf(info->market_name, sizeof info->market_name, "AMD Instinct MI300X");
    info->vendor_id = 0x1002;
    return 0;
}

/* The accumulator counts 2^-16 J; the resolution that goes with it is rounded up, as in the real library. */
int amdsmi_get_energy_count(handle_t handle, uint64_t *count, float *resolution, uint64_t *timestamp) {
    CALL(handle);
    double joules = counter_joules(VARIABLE, device_of(handle));
    *count = (uint64_t)(joules * 65536.0);
    *resolution = 15.3f;
    *timestamp = (uint64_t)(now_s() * 1e9);
    return 0;
}

int amdsmi_get_power_info(handle_t handle, amdsmi_power_info_t *info) {
    CALL(handle);
    int device = device_of(handle);
    memset(info, 0, sizeof *info);
    uint32_t average = (uint32_t)lround(power_watts(VARIABLE, device, 1.0));
    uint32_t now = (uint32_t)lround(power_watts(VARIABLE, device, 0));
    info->average_socket_power = real_of(VARIABLE, device, "no_average", 0) > 0 ? 0xFFFF : average;
    info->current_socket_power = real_of(VARIABLE, device, "no_current", 0) > 0 ? 0xFFFF : now;
    info->socket_power = now;
    info->power_limit = 750;
    return 0;
}
#ifdef STUBS
#include STUBS
#endif
