"""Huawei's DCMI library (``libdcmi.so``) for Ascend NPUs, with every refusal turned into an answer.

Signatures, structs and codes as in Huawei's ``dcmi_interface_api.h``. An NPU has three numbers: (card, chip)
is how DCMI calls it, the physical id is that of ``/dev/davinciN``, and the logical id is what programs count
by and what ``ASCEND_RT_VISIBLE_DEVICES`` names; in a container logical and physical ids differ.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from profiler.backends.base import Unavailable
from profiler.backends.identity import normal_pci

LIBRARIES = (
    "/usr/local/dcmi/libdcmi.so",
    "/usr/local/Ascend/driver/lib64/driver/libdcmi.so",
    "libdcmi.so",
)
_MAX_CARDS = 64
_NAME_BYTES = 32
_VERSION_BYTES = 256
_MAX_PROCESSES = 64
_MEMORIES = (2, 0)  # enum dcmi_device_type: HBM, else DDR
_GONE = 0xFFFFFFFF  # of dcmi_get_device_health: no such device, or it has not started
_NPU_TYPE = 0  # dcmi_unit_type: a card also has a management unit, which computes nothing
_ERRORS: dict[int, tuple[str, str]] = {
    -8001: ("unknown", "DCMI says: invalid parameter"),
    -8002: ("permission", "DCMI may not be used by this user"),
    -8005: ("driver_not_loaded", "DCMI could not be initialised"),
    -8006: ("unreadable", "DCMI's function failed"),
    -8007: ("no_device", "DCMI finds no such device"),
    -8012: ("reset_required", "the NPU is resetting"),
    -8013: ("masked_in_container", "DCMI does not offer it inside a container"),
    -8255: ("not_supported_by_device", "this NPU does not offer it"),
}


class Pcie(ctypes.Structure):
    """``struct dcmi_pcie_info_all``."""

    _fields_ = (
        ("vendor", ctypes.c_uint),
        ("subvendor", ctypes.c_uint),
        ("device_number", ctypes.c_uint),
        ("subdevice", ctypes.c_uint),
        ("domain", ctypes.c_int),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("function", ctypes.c_uint),
        ("reserve", ctypes.c_ubyte * 32),
    )


class Hbm(ctypes.Structure):
    """``struct dcmi_hbm_info``; sizes in MiB."""

    _fields_ = (
        ("memory_size", ctypes.c_ulonglong),
        ("freq", ctypes.c_uint),
        ("memory_usage", ctypes.c_ulonglong),
        ("temp", ctypes.c_int),
        ("bandwidth_rate", ctypes.c_uint),
    )


class ChipInfo(ctypes.Structure):
    """``struct dcmi_chip_info``."""

    _fields_ = (
        ("chip_type", ctypes.c_char * _NAME_BYTES),
        ("chip_name", ctypes.c_char * _NAME_BYTES),
        ("chip_version", ctypes.c_char * _NAME_BYTES),
        ("ai_cores", ctypes.c_uint),
    )


class Ecc(ctypes.Structure):
    """``struct dcmi_ecc_info``; "single" errors were corrected, "double" ones were not."""

    _fields_ = (
        ("enable_flag", ctypes.c_int),
        ("single_bit_error_cnt", ctypes.c_uint),
        ("double_bit_error_cnt", ctypes.c_uint),
        ("total_single_bit_error_cnt", ctypes.c_uint),
        ("total_double_bit_error_cnt", ctypes.c_uint),
        ("single_bit_isolated_pages_cnt", ctypes.c_uint),
        ("double_bit_isolated_pages_cnt", ctypes.c_uint),
    )


class Process(ctypes.Structure):
    """``struct dcmi_proc_mem_info``; bytes."""

    _fields_ = (("proc_id", ctypes.c_int), ("proc_mem_usage", ctypes.c_ulong))


class AiCore(ctypes.Structure):
    """``struct dcmi_aicore_info``; clocks in MHz."""

    _fields_ = (("freq", ctypes.c_uint), ("cur_freq", ctypes.c_uint))


@dataclass(frozen=True)
class Chip:
    """One NPU.

    Attributes:
        card: DCMI's number of the card.
        chip: number of the chip on it.
        key: PCI address, else ``npu-CARD-CHIP``; never an id that the environment changes.
        pci_address: ``0000:c1:00.0`` where it names this chip alone, else None.
        logic_id: what programs count by, or None where the driver does not say.
        physical_id: of ``/dev/davinciN``, or None.
    """

    card: int
    chip: int
    key: str
    pci_address: str | None
    logic_id: int | None
    physical_id: int | None


class Dcmi:
    """Opens the library when first asked; :meth:`ask` calls its functions by name and never raises.

    Args:
        library: path of ``libdcmi.so``; by default where Huawei's installers put it.
    """

    def __init__(self, library: str | None = None) -> None:
        self.library = library
        self._dcmi: Any = None

    def open(self) -> Unavailable | None:
        """Load and initialise the library once; return why not, or None when it is open."""
        if self._dcmi is not None:
            return None
        for path in (self.library,) if self.library else LIBRARIES:
            try:
                library = ctypes.CDLL(path)
            except OSError:
                continue
            if not hasattr(library, "dcmi_init"):
                text = f"{path} has no dcmi_init; only newer functions (dcmiv2) are there"
                return Unavailable("library_mismatch", text, "report it with the version of the driver")
            code = library.dcmi_init()
            if code != 0:
                return refusal(code)
            self._dcmi = library
            return None
        return Unavailable(
            "no_library",
            "no DCMI library found (libdcmi.so)",
            "install the Ascend driver; in a container mount /usr/local/dcmi and /usr/local/Ascend/driver",
        )

    @property
    def simulated(self) -> bool:
        """Whether the opened library says of itself that no hardware stands behind it."""
        return self._dcmi is not None and hasattr(self._dcmi, "aiprof_simulated")

    def ask(self, call: str, *arguments: Any) -> Unavailable | None:
        """Call a function of the library; None when it succeeded."""
        failure = self.open()
        if failure is not None:
            return failure
        function = getattr(self._dcmi, call, None)
        if function is None:
            return Unavailable("library_mismatch", f"the installed driver has no {call}")
        code = function(*arguments)
        return None if code == 0 else refusal(code)

    def fill(self, call: str, card: int, chip: int, kind: type[Any]) -> Any:
        """Return a ``kind`` that the function filled in for a chip, or :class:`Unavailable`."""
        answer = kind()
        refused = self.ask(call, card, chip, ctypes.byref(answer))
        return answer if refused is None else refused

    def reader(
        self, call: str, card: int, chip: int, kind: type[Any], value: Callable[[Any], int]
    ) -> Callable[[], int | Unavailable]:
        """Return a function that reads one number of a chip."""

        def read() -> int | Unavailable:
            answer = self.fill(call, card, chip, kind)
            return answer if isinstance(answer, Unavailable) else int(value(answer))

        return read

    def health(self, card: int, chip: int) -> int | Unavailable:
        """Return 0 for a healthy chip, 1 for a warning, 2 for an important alarm, 3 for a critical one."""
        answer = self.fill("dcmi_get_device_health", card, chip, ctypes.c_uint)
        if isinstance(answer, Unavailable):
            return answer
        if answer.value == _GONE:
            return Unavailable("lost", "the NPU is not there or has not started", "npu-smi info -t health")
        return int(answer.value)

    def uncorrected_errors(self, card: int, chip: int) -> int | Unavailable:
        """Return how many errors of the chip's memory could not be corrected since they are counted."""
        refused: Unavailable | None = None
        for memory in _MEMORIES:
            info = Ecc()
            refused = self.ask("dcmi_get_device_ecc_info", card, chip, memory, ctypes.byref(info))
            if refused is None and info.enable_flag:
                return int(info.total_double_bit_error_cnt)
        return refused or Unavailable("not_supported_by_device", "ECC is switched off on this NPU")

    def processes(self, card: int, chip: int) -> int | Unavailable:
        """Return how many processes hold memory of the chip, whoever they belong to."""
        found, count = (Process * _MAX_PROCESSES)(), ctypes.c_int()
        refused = self.ask("dcmi_get_device_resource_info", card, chip, found, ctypes.byref(count))
        return refused or count.value

    def version(self, call: str) -> str | Unavailable:
        """Return what ``dcmi_get_driver_version`` or ``dcmi_get_dcmi_version`` says."""
        buffer = ctypes.create_string_buffer(_VERSION_BYTES)
        refused = self.ask(call, buffer, _VERSION_BYTES)
        return refused or buffer.value.decode("utf-8", "replace")

    def link_type(self, first: Chip, second: Chip) -> int | Unavailable:
        """Return how two chips are connected, as ``DCMI_TOPO_TYPE_…``."""
        kind = ctypes.c_int()
        places = (first.card, first.chip, second.card, second.chip)
        return self.ask("dcmi_get_topo_info_by_device_id", *places, ctypes.byref(kind)) or kind.value

    def chips(self) -> list[Chip] | Unavailable:
        """Return every NPU, in order of cards and chips."""
        count, cards = ctypes.c_int(), (ctypes.c_int * _MAX_CARDS)()
        refused = self.ask("dcmi_get_card_list", ctypes.byref(count), cards, _MAX_CARDS)
        if refused is not None:
            return refused
        places = [place for card in cards[: count.value] for place in self._places(card)]
        if not places:
            return Unavailable("no_device", "DCMI lists no NPU", "npu-smi info must list it")
        addresses = [self._pci_address(*place) for place in places]
        chips = []
        for (card, chip), address in zip(places, addresses, strict=True):
            # Two chips behind one address are told apart by their places.
            own = address if addresses.count(address) == 1 else None
            logic = self._number("dcmi_get_device_logic_id", card, chip, place_first=False)
            physical = None
            if logic is not None:
                physical = self._number("dcmi_get_device_phyid_from_logicid", logic)
            chips.append(Chip(card, chip, own or f"npu-{card}-{chip}", own, logic, physical))
        return [self._checked(chip) for chip in chips]

    def _places(self, card: int) -> list[tuple[int, int]]:
        number = ctypes.c_int()
        if self.ask("dcmi_get_device_num_in_card", card, ctypes.byref(number)) is not None:
            return []
        places = []
        for chip in range(number.value):
            kind = ctypes.c_int(_NPU_TYPE)
            known = self.ask("dcmi_get_device_type", card, chip, ctypes.byref(kind)) is None
            if not known or kind.value == _NPU_TYPE:
                places.append((card, chip))
        return places

    def _checked(self, chip: Chip) -> Chip:
        """Keep the ids only if the way back, from physical id to card and chip, ends at the same chip."""
        if chip.physical_id is None:
            return chip
        card, number = ctypes.c_int(), ctypes.c_int()
        place = (ctypes.byref(card), ctypes.byref(number))
        refused = self.ask("dcmi_get_card_id_device_id_from_phyid", *place, chip.physical_id)
        if refused is not None or (card.value, number.value) == (chip.card, chip.chip):
            return chip
        return Chip(chip.card, chip.chip, chip.key, chip.pci_address, None, None)

    def _number(self, call: str, *arguments: int, place_first: bool = True) -> int | None:
        answer = ctypes.c_int()
        place = (*arguments, ctypes.byref(answer)) if place_first else (ctypes.byref(answer), *arguments)
        return None if self.ask(call, *place) is not None else answer.value

    def _pci_address(self, card: int, chip: int) -> str | None:
        info = self.fill("dcmi_get_device_pcie_info_v2", card, chip, Pcie)
        if isinstance(info, Unavailable) or not (info.domain or info.bus or info.device):
            return None
        return normal_pci(f"{info.domain:x}:{info.bus:x}:{info.device:x}.{info.function:x}")


def refusal(number: int) -> Unavailable:
    """Return what an error code of DCMI means."""
    code, text = _ERRORS.get(number, ("unknown", "DCMI failed"))
    return Unavailable(code, f"{text} ({number})")
