/* A libdcmi.so without an NPU. Signatures and structs as in Huawei's dcmi_interface_api.h; the configuration is
 * in the file named by FAKE_DCMI_CONFIG (see fake_power.h), with cards=N and chips=N per card. Chip c of card k
 * is device k * chips + c. Besides power profiles it has
 *
 *   0.logic=3                  logical id of device 0 (its number without the line; -1: none)
 *   physical_offset=8          physical id = logical id + 8, as in a container
 *   crossed=1                  the way back from a physical id ends at the next chip
 *   0.bus=193                  PCI bus of device 0
 *   0.name=910B2  0.used_mib=3417
 *   topology=3                 how any two devices are connected (DCMI_TOPO_TYPE_HCCS)
 *   0.clock_mhz=800            of the AI cores now (rated: 1800)
 *   0.health=2  0.double_bit=1  0.ecc=0   alarm; errors that were not corrected; ECC switched off
 *   0.processes=1  0.temperature=48
 *   mcu=1                      each card has one more unit, which is no NPU
 */
#define _GNU_SOURCE
#include "fake_power.h"

static const char *VARIABLE = "FAKE_DCMI_CONFIG";
enum { NOT_INITIALISED = -8005, NO_DEVICE = -8007, NOT_SUPPORTED = -8255 };

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
struct dcmi_chip_info {
    char chip_type[32], chip_name[32], chip_ver[32];
    unsigned aicore_cnt;
};
struct dcmi_aicore_info { unsigned freq, cur_freq; };
struct dcmi_ecc_info {
    int enable_flag;
    unsigned single_bit_error_cnt, double_bit_error_cnt, total_single_bit_error_cnt, total_double_bit_error_cnt;
    unsigned single_bit_isolated_pages_cnt, double_bit_isolated_pages_cnt;
};
struct dcmi_proc_mem_info { int proc_id; unsigned long proc_mem_usage; };
_Static_assert(sizeof(struct dcmi_ecc_info) == 28, "dcmi_ecc_info");
_Static_assert(sizeof(struct dcmi_proc_mem_info) == 16, "dcmi_proc_mem_info");
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
    *count = chips() + (int)real_of(VARIABLE, -1, "mcu", 0);
    return 0;
}

int dcmi_get_device_type(int card, int chip, int *type) {
    if (!initialised) return NOT_INITIALISED;
    *type = chip >= chips();
    return card < 0 || card >= cards() ? NO_DEVICE : 0;
}

static int logic_of(int device) { return (int)real_of(VARIABLE, device, "logic", device); }
static int physical_of(int logic) { return logic + (int)real_of(VARIABLE, -1, "physical_offset", 0); }

int dcmi_get_device_logic_id(int *logic, int card, int chip) {
    CALL(card, chip);
    *logic = logic_of(card * chips() + chip);
    return *logic < 0 ? NO_DEVICE : 0;
}

int dcmi_get_device_phyid_from_logicid(unsigned logic, unsigned *physical) {
    if (!initialised) return NOT_INITIALISED;
    *physical = (unsigned)physical_of((int)logic);
    return 0;
}

int dcmi_get_card_id_device_id_from_phyid(int *card, int *chip, unsigned physical) {
    if (!initialised) return NOT_INITIALISED;
    for (int device = 0; device < cards() * chips(); device++)
        if (physical_of(logic_of(device)) == (int)physical) {
            int wrong = (int)real_of(VARIABLE, -1, "crossed", 0);
            *card = device / chips();
            *chip = (device + wrong) % chips();
            return 0;
        }
    return NO_DEVICE;
}

int dcmi_get_driver_version(char *text, unsigned size) {
    if (!initialised) return NOT_INITIALISED;
    snprintf(text, size, "25.2.0");
    return fault(VARIABLE, -1, __func__);
}

int dcmi_get_dcmi_version(char *text, unsigned size) {
    if (!initialised) return NOT_INITIALISED;
    snprintf(text, size, "25.2.0");
    return 0;
}

int dcmi_get_device_chip_info(int card, int chip, struct dcmi_chip_info *info) {
    CALL(card, chip);
    char key[32];
    memset(info, 0, sizeof *info);
    snprintf(info->chip_type, sizeof info->chip_type, "Ascend");
    snprintf(info->chip_ver, sizeof info->chip_ver, "V1");
    snprintf(key, sizeof key, "%d.name", card * chips() + chip);
    if (!lookup(VARIABLE, key, info->chip_name, sizeof info->chip_name))
        snprintf(info->chip_name, sizeof info->chip_name, "910B2");
    info->aicore_cnt = 24;
    return 0;
}

int dcmi_get_device_aicore_info(int card, int chip, struct dcmi_aicore_info *info) {
    CALL(card, chip);
    unsigned now = (unsigned)real_of(VARIABLE, card * chips() + chip, "clock_mhz", 1800);
    *info = (struct dcmi_aicore_info){1800, now};
    return 0;
}

int dcmi_get_device_health(int card, int chip, unsigned *health) {
    CALL(card, chip);
    *health = (unsigned)real_of(VARIABLE, card * chips() + chip, "health", 0);
    return 0;
}

/* Only HBM (type 2), as on the 910B. */
int dcmi_get_device_ecc_info(int card, int chip, int type, struct dcmi_ecc_info *info) {
    CALL(card, chip);
    if (type != 2) return NOT_SUPPORTED;
    int device = card * chips() + chip;
    memset(info, 0, sizeof *info);
    info->enable_flag = (int)real_of(VARIABLE, device, "ecc", 1);
    info->total_double_bit_error_cnt = (unsigned)real_of(VARIABLE, device, "double_bit", 0);
    return 0;
}

int dcmi_get_device_resource_info(int card, int chip, struct dcmi_proc_mem_info *list, int *count) {
    CALL(card, chip);
    *count = (int)real_of(VARIABLE, card * chips() + chip, "processes", 0);
    for (int at = 0; at < *count && at < 64; at++) list[at] = (struct dcmi_proc_mem_info){100 + at, 1 << 20};
    return 0;
}

int dcmi_get_topo_info_by_device_id(int card, int chip, int other_card, int other_chip, int *type) {
    CALL(card, chip);
    CALL(other_card, other_chip);
    *type = (int)real_of(VARIABLE, -1, "topology", 3);
    return 0;
}

int dcmi_get_device_pcie_info_v2(int card, int chip, struct dcmi_pcie_info_all *info) {
    CALL(card, chip);
    memset(info, 0, sizeof *info);
    int device = card * chips() + chip;
    info->bdf_busid = (unsigned)real_of(VARIABLE, device, "bus", 0xc1 + device);
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
    *temperature = (int)real_of(VARIABLE, card * chips() + chip, "temperature", 48);
    return 0;
}

int dcmi_get_device_hbm_info(int card, int chip, struct dcmi_hbm_info *info) {
    CALL(card, chip);
    memset(info, 0, sizeof *info);
    info->memory_size = 65536;
    info->memory_usage = (unsigned long long)real_of(VARIABLE, card * chips() + chip, "used_mib", 3417);
    return 0;
}
