"""The program that `local` runs as a child process: llama.cpp behind a line protocol.

One JSON object a line. From the parent, on standard input::

    {"id": 1, "request": {…}}        run a completion; the request is llama.cpp's own
    {"cancel": 1}                    stop it after the token in hand

To the parent, on standard output::

    {"ready": true}                  the model is loaded
    {"failed": "…"}                  it cannot be loaded; the process ends
    {"id": 1, "text": "…"}           a piece of the answer; "" while the prompt is being read
    {"id": 1, "end": "stop"}         the answer is whole ("length": cut by a limit, "cancelled")
    {"id": 1, "error": "…", "kind": "…"}

The process ends when its standard input closes, so it never outlives its parent, however that one ended.
It runs as a plain file, without importing perdure: it needs nothing but the standard library and xllamacpp.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import threading
from typing import Any

PROMPT_BATCH_TOKENS = 64
"""Tokens of a prompt between two looks at the cancel flag: about 0.4 s on one core."""


class Worker:
    """Runs completions, one thread each; llama.cpp batches those that run together."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._output_lock = threading.Lock()
        self._cancelled: dict[int, threading.Event] = {}
        self._server: Any = None

    def load(self, settings: dict[str, Any]) -> None:
        """Load the model, and say so or why not."""
        try:
            self._server = _make_server(settings)
        except BaseException as error:
            self.send({"failed": f"{type(error).__name__}: {error}"})
            os._exit(1)
        self.send({"ready": True})

    def send(self, frame: dict[str, Any]) -> None:
        line = json.dumps(frame).encode() + b"\n"
        with self._output_lock:
            try:
                self._output.write(line)
                self._output.flush()
            except OSError:
                os._exit(0)  # the parent is gone

    def start(self, turn: int, request: dict[str, Any]) -> None:
        self._cancelled[turn] = threading.Event()
        threading.Thread(target=self._run, args=(turn, request), daemon=True).start()

    def cancel(self, turn: int) -> None:
        if turn in self._cancelled:
            self._cancelled[turn].set()

    def _run(self, turn: int, request: dict[str, Any]) -> None:
        cancelled = self._cancelled[turn]
        outcome: dict[str, Any] = {"end": "cancelled"}

        def on_result(result: dict[str, Any]) -> bool:
            # llama.cpp calls this for each token, and for each batch of the prompt; True stops it.
            nonlocal outcome
            if "error" in result:
                error = result["error"]
                outcome = {"error": str(error.get("message", error)), "kind": str(error.get("type", ""))}
                return True
            choice = result["choices"][0]
            if choice.get("finish_reason"):
                outcome = {"end": choice["finish_reason"]}
            if not cancelled.is_set():
                self.send({"id": turn, "text": choice.get("text") or ""})
            return cancelled.is_set()

        try:
            self._server.handle_completions(request, on_result)
        except Exception as error:
            outcome = {"error": f"{type(error).__name__}: {error}", "kind": "exception"}
        del self._cancelled[turn]
        self.send({"id": turn, **outcome})


def _make_server(settings: dict[str, Any]) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.n_parallel = settings["turns_at_once"]
    parameters.n_ctx = settings["context_tokens"] * settings["turns_at_once"]
    parameters.kv_unified = False
    parameters.cpuparams.n_threads = settings["threads"]
    parameters.cpuparams_batch.n_threads = settings["threads"]
    parameters.n_batch = parameters.n_ubatch = PROMPT_BATCH_TOKENS
    parameters.cache_ram_mib = 0  # its default keeps up to 8 GiB of old prompts
    parameters.warmup = False
    parameters.verbosity = -1
    # xllamacpp opens an HTTP port on loopback, which nobody here uses: a key that nobody knows shuts it.
    parameters.api_keys = [secrets.token_hex(16)]
    parameters.endpoint_slots = False
    parameters.ui = False
    parameters.n_threads_http = 1
    return xllamacpp.Server(parameters)


def main() -> None:
    # Whatever the C++ code prints must not get between the frames: file descriptor 1 becomes stderr.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes our input
    if hasattr(os, "nice"):
        os.nice(5)  # a server on the same core goes first: it has people waiting
    worker = Worker(output)
    settings = json.loads(sys.argv[1])
    # Loading holds no one up: the input's end is noticed meanwhile.
    loading = threading.Thread(target=worker.load, args=(settings,), daemon=True)
    loading.start()
    for line in sys.stdin.buffer:
        frame = json.loads(line)
        loading.join()
        if "cancel" in frame:
            worker.cancel(frame["cancel"])
        else:
            worker.start(frame["id"], frame["request"])
    os._exit(0)  # no destructors: threads inside C++ would be waited for


if __name__ == "__main__":
    main()
