"""The metrics that the simulator gives and reads, as DCGM's exporter and the model servers call them.

A test holds them against the table of sources of velagen's monitoring, which is not installed where the simulator runs.
"""

from __future__ import annotations

from typing import Final

#: As `GpuSource` of velagen/monitoring/sources.py; source: NVIDIA/dcgm-exporter etc/default-counters.csv.
UTILIZATION: Final = "DCGM_FI_DEV_GPU_UTIL"
ENGINE: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
MEMORY_USED: Final = "DCGM_FI_DEV_FB_USED"
MEMORY_FREE: Final = "DCGM_FI_DEV_FB_FREE"
XID: Final = "DCGM_FI_DEV_XID_ERRORS"
#: Counters of the time that a model server spent computing: the name -> seconds in one unit of it.
BUSY: Final = {
    "nv_inference_compute_input_duration_us": 1e-6,
    "nv_inference_compute_infer_duration_us": 1e-6,
    "nv_inference_compute_output_duration_us": 1e-6,
    "model_infer_request_duration_sum": 1.0,
    "request_predict_seconds_sum": 1.0,
}
