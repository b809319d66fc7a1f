"""Qualcomm's compiler and simulator in a process of their own: `python worker.py`, started by compiler.py.

It needs onnxruntime, onnxruntime-qnn and numpy, and nothing of bluelm, so that any interpreter that has those can run
it. Requests come as JSON lines on stdin, answers go out as JSON lines on the stdout that the process started with; the
libraries' own chatter goes to stderr. Arrays travel as .npz files.

    {"do": "compile", "soc": 57, "graphs": {"prefill": "/in/prefill.onnx", ...}, "out": "/out"}   one context binary
    {"do": "run", "graph": "prefill", "feeds": "/tmp/feeds.npz", "found": "/tmp/found.npz"}
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import onnxruntime as ort
    import onnxruntime_qnn as qnn

    ort.register_execution_provider_library(qnn.get_ep_name(), qnn.get_library_path())
    ort.set_default_logger_severity(4)
    devices = [device for device in ort.get_ep_devices() if device.ep_name == qnn.get_ep_name()][:1]
    sessions: dict[str, Any] = {}

    def compile_graphs(request: dict[str, Any]) -> dict[str, Any]:
        seconds, last = {}, list(request["graphs"])[-1]
        for name, path in request["graphs"].items():
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            entries = {"session.disable_cpu_ep_fallback": "1", "ep.context_enable": "1", "ep.context_embed_mode": "0"}
            entries["ep.context_file_path"] = str(Path(request["out"]) / f"{name}.onnx")
            if len(request["graphs"]) > 1:
                # All of them go into one binary, which the last one writes.
                entries["ep.share_ep_contexts"] = "1"
                entries["ep.stop_share_ep_contexts"] = str(int(name == last))
            for key, value in entries.items():
                options.add_session_config_entry(key, value)
            chosen = {"backend_path": qnn.get_qnn_htp_path(), "soc_model": str(request["soc"])}
            options.add_provider_for_devices(devices, chosen)
            started = time.perf_counter()
            sessions[name] = ort.InferenceSession(path, options)
            seconds[name] = time.perf_counter() - started
        return {"seconds": seconds}

    def run(request: dict[str, Any]) -> dict[str, Any]:
        session = sessions[request["graph"]]
        outputs = [output.name for output in session.get_outputs()]
        with np.load(request["feeds"]) as feeds:
            found = session.run(outputs, dict(feeds))
        np.savez(request["found"], **dict(zip(outputs, found)))  # noqa: B905
        return {}

    answers.write(json.dumps({"onnxruntime": ort.__version__, "onnxruntime_qnn": qnn.__version__}) + "\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"compile": compile_graphs, "run": run}[request["do"]](request)
        except Exception as error:  # onnxruntime's errors share no other base
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
