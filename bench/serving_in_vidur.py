"""Requests served by Vidur 0.0.26's Sarathi scheduler: python serving_in_vidur.py JOB.json, by Vidur's interpreter.

Vidur's own times of a batch need a download of its authors' measurements. Its registry takes another predictor, so a
batch lasts as a server of servegen_gpu says; all else is Vidur's: events, routing, chunks, blocks of KV cache.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from vidur.config import (
    CacheConfig,
    ClusterConfig,
    LinearRegressionExecutionTimePredictorConfig,
    MetricsConfig,
    ReplicaConfig,
    RoundRobinGlobalSchedulerConfig,
    SarathiSchedulerConfig,
    SimulationConfig,
    TraceRequestGeneratorConfig,
)
from vidur.entities import Request
from vidur.execution_time_predictor import BaseExecutionTimePredictor, ExecutionTimePredictorRegistry
from vidur.request_generator.trace_replay_request_generator import TraceReplayRequestGenerator
from vidur.simulator import Simulator
from vidur.types import ExecutionTimePredictorType

JOB: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
SERVER, BLOCK = JOB["server"], 16
PARTS = (
    *("attention_layer_pre_proj", "attention_layer_post_proj", "attention_rope", "attention_kv_cache_save"),
    *("attention_decode", "attention_prefill", "mlp_layer_up_proj", "mlp_layer_down_proj", "mlp_layer_act"),
    *("mlp_norm_layer_act", "attn_norm_layer_act", "add_layer_act"),
)


def batch_ms(predictor: Any, batch: Any) -> float:
    """Of a layer: the whole time is in one of a layer's parts."""
    decoding = sum(request.is_prefill_complete for request in batch.requests)
    tokens = batch.total_num_q_tokens - decoding
    step_s = SERVER["step_s"] + SERVER["prefill_s_per_token"] * tokens + SERVER["decode_s_per_sequence"] * decoding
    step_s += SERVER["prefill_s_per_step"] if tokens else 0.0
    return 1e3 * step_s / predictor._num_layers_per_pipeline_stage


def nothing(*_: Any) -> float:
    return 0.0


methods = {f"_get_{part}_execution_time": nothing for part in PARTS}
methods |= {f"_get_{kind}_parallel_communication_time": nothing for kind in ("tensor", "pipeline", "kv")}
Linear = type("Linear", (BaseExecutionTimePredictor,), methods | {"_get_mlp_layer_up_proj_execution_time": batch_ms})


def main() -> None:
    """The script."""
    requests: list[Any] = []

    def generate(_: Any) -> list[Any]:
        requests.extend(Request(*row) for row in zip(*JOB["requests"], strict=True))
        return requests

    TraceReplayRequestGenerator.__init__ = lambda self, config: None
    TraceReplayRequestGenerator.generate_requests = generate
    kind = ExecutionTimePredictorType.LINEAR_REGRESSION
    ExecutionTimePredictorRegistry.unregister(kind)
    ExecutionTimePredictorRegistry.register(kind, Linear)
    with tempfile.TemporaryDirectory() as folder:
        config = SimulationConfig(
            log_level="error",
            cluster_config=ClusterConfig(
                num_replicas=JOB["instances"],
                replica_config=ReplicaConfig(num_pipeline_stages=1, tensor_parallel_size=1),
                cache_config=CacheConfig(BLOCK, SERVER["kv_tokens"] // BLOCK, watermark_blocks_fraction=0.0),
                global_scheduler_config=RoundRobinGlobalSchedulerConfig(),
                replica_scheduler_config=SarathiSchedulerConfig(SERVER["max_sequences"], SERVER["step_tokens"]),
            ),
            request_generator_config=TraceRequestGeneratorConfig(max_tokens=8192),
            execution_time_predictor_config=LinearRegressionExecutionTimePredictorConfig(
                use_native_execution_time_predictor=False
            ),
            metrics_config=MetricsConfig(
                write_metrics=False, store_plots=False, enable_chrome_trace=False, output_dir=folder
            ),
        )
        Simulator(config).run()
    times = {
        "ttft_s": [request.prefill_completed_at - request.arrived_at for request in requests],
        "decode_s": [request.completed_at - request.prefill_completed_at for request in requests],
        "restarts": sum(request._num_restarts for request in requests),
    }
    Path(JOB["output"]).write_text(json.dumps(times))


if __name__ == "__main__":
    main()
