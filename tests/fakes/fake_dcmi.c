/* A libdcmi.so without an NPU. Signatures and structs as in Huawei's dcmi_interface_api.h; the configuration is
 * in the file named by FAKE_DCMI_CONFIG (see fake_power.h), with cards=N and chips=N per card. Chip c of card k
 * is device k * chips + c.
 */
#define _GNU_SOURCE
#include "fake_power.h"

static const char *VARIABLE = "FAKE_DCMI_CONFIG";
enum { NOT_INITIALISED = -8005, NO_DEVICE = -8007 };

struct dcmi_hbm_info {
    unsigned long long memory_size;
    unsigned freq;
    unsigned long long memory_usage;
    int temp;
    unsigned bandwidth_rate;
};
struct dcmi_pcie_info_all {
    unsigned venderid, subvenderid, deviceid, subdeviceid;
    int domain;
    unsigned bdf_busid, bdf_deviceid, bdf_funcid;
    unsigned char reserve[32];
};
_Static_assert(sizeof(struct dcmi_hbm_info) == 32, "dcmi_hbm_info");
_Static_assert(sizeof(struct dcmi_pcie_info_all) == 64, "dcmi_pcie_info_all");

static int initialised;
static int cards(void) { return (int)real_of(VARIABLE, -1, "cards", 0); }
static int chips(void) { return (int)real_of(VARIABLE, -1, "chips", 1); }

static int refusal(int card, int chip, const char *function) {
    if (!initialised) return NOT_INITIALISED;
    if (card < 0 || card >= cards() || chip < 0 || chip >= chips()) return NO_DEVICE;
    return fault(VARIABLE, card * chips() + chip, function);
}
#define CALL(card, chip) do { int refused = refusal(card, chip, __func__); if (refused) return refused; } while (0)

#ifndef WITHOUT_V1
int dcmi_init(void) {
    int refused = fault(VARIABLE, -1, __func__);
    initialised = !refused;
    return refused;
}
#endif

int dcmi_get_card_list(int *count, int *list, int length) {
    if (!initialised) return NOT_INITIALISED;
    *count = cards();
    for (int card = 0; card < *count && card < length; card++) list[card] = card;
    return 0;
}

int dcmi_get_device_num_in_card(int card, int *count) {
    CALL(card, 0);
    *count = chips();
    return 0;
}

int dcmi_get_device_pcie_info_v2(int card, int chip, struct dcmi_pcie_info_all *info) {
    CALL(card, chip);
    memset(info, 0, sizeof *info);
    info->bdf_busid = 0xc1 + (unsigned)(card * chips() + chip);
    return 0;
}

/* In units of 0.1 W. */
int dcmi_get_device_power_info(int card, int chip, int *power) {
    CALL(card, chip);
    int device = card * chips() + chip;
    double watts = power_watts(VARIABLE, device, real_of(VARIABLE, device, "average_ms", 0) * 1e-3);
    *power = isnan(watts) ? 0 : (int)lround(10 * watts);
    return 0;
}

int dcmi_get_device_temperature(int card, int chip, int *temperature) {
    CALL(card, chip);
    *temperature = 48;
    return 0;
}

int dcmi_get_device_hbm_info(int card, int chip, struct dcmi_hbm_info *info) {
    CALL(card, chip);
    memset(info, 0, sizeof *info);
    info->memory_size = 65536;
    info->memory_usage = 3417;
    return 0;
}
