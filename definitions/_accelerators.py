"""What the trait accelerator knows of each kind of hardware: one row a kind, and the tables made of them.

A further kind is a row here, a word in schemas/accelerator.json (`type`, and `anyOf` where it is a GPU) and a row in
docs/definitions/accelerator.md; tests/unit/test_accelerator.py holds the three together.

Sources: NVIDIA k8s-device-plugin docs/gpu-feature-discovery (nvidia.com/gpu.product: the driver's name of the GPU, its
spaces as dashes, -SHARED behind it where shares keep the name nvidia.com/gpu), NVIDIA's table of CUDA GPUs (compute
capability); ROCm k8s-device-plugin cmd/k8s-node-labeller main.go (amd.com/gpu.product-name: spaces as underscores) and
amdgpu.ids, AMD's documentation of the device plugin (AMD_Instinct_MI300X_OAM).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vendor:
    """What a vendor's device plugin and labeller call things."""

    name: str
    #: What a pod asks for.
    resource: str
    #: The label of a node that says which GPU it has.
    label: str
    #: What is behind the GPU's name where several pods share one by time-slicing or MPS under its old resource name.
    shared_suffix: str = ""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU, in all the forms in which it is sold."""

    vendor: Vendor
    #: Values of the vendor's label.
    products: tuple[str, ...]
    #: NVIDIA's compute capability.
    compute: tuple[int, int] | None = None

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16: NVIDIA's do from compute capability 8.0."""
        return self.compute is None or self.compute >= (8, 0)


NVIDIA = Vendor("NVIDIA", "nvidia.com/gpu", "nvidia.com/gpu.product", "-SHARED")
AMD = Vendor("AMD", "amd.com/gpu", "amd.com/gpu.product-name")
VENDORS = (NVIDIA, AMD)

GPUS = {
    "t4": Gpu(NVIDIA, ("Tesla-T4",), (7, 5)),
    "l40s": Gpu(NVIDIA, ("NVIDIA-L40S",), (8, 9)),
    "a100": Gpu(
        NVIDIA,
        ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-80GB-PCIe"),
        (8, 0),
    ),
    "h100": Gpu(NVIDIA, ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"), (9, 0)),
    "mi300x": Gpu(
        AMD,
        ("AMD_Instinct_MI300X_OAM", "AMD_Instinct_MI300X", "AMD_Instinct_MI300X_HF", "AMD_Instinct_MI300X_VF"),
    ),
}
#: What `type` takes beside the kinds of GPU: no GPU at all, or any NVIDIA GPU.
CPU, ANY = "cpu", "any"

# What the definition looks up -----------------------------------------------------------------------------------------

PRODUCTS = {name: list(one.products) for name, one in GPUS.items()}
#: The same with the names under which GPUs are shared.
WITH_SHARED = {
    name: [
        *one.products,
        *(f"{product}{one.vendor.shared_suffix}" for product in one.products if one.vendor.shared_suffix),
    ]
    for name, one in GPUS.items()
}
VENDOR_OF = {name: one.vendor.name for name, one in GPUS.items() if one.vendor != NVIDIA}
RESOURCES = {one.name: one.resource for one in VENDORS}
LABELS = {one.name: one.label for one in VENDORS}
WITHOUT_BFLOAT16 = {name: True for name, one in GPUS.items() if not one.has_bfloat16}
