"""A local server that speaks Anthropic's and OpenAI's wire formats, byte for byte, and fails on demand.

The real SDKs talk to it. Each event's bytes are those of the providers' documented streams; the scenario
decides where they end::

    async with FakeProviders("overloaded_mid_stream") as fake:
        AnthropicProvider(base_url=fake.url, api_key="key")
        fake.requests[0]["messages"]
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any

SCENARIOS = (
    "normal",
    "thinking",
    "tool",  # thinks, speaks and calls `weather`; with its result, the words
    "cited",  # the words, with a source (Anthropic, OpenAI's Responses)
    "length",  # the words, cut off by the token limit
    "overloaded_mid_stream",
    "refused",  # answers with `status` at once
    "no_prefill",  # 400 when the last message is the assistant's
    "hang",  # headers, then nothing
    "hang_mid_stream",
    "cut",  # the connection is reset in the middle
    "cut_politely",  # the body ends as if all were well, without the last events
)

ANTHROPIC_START = (
    b"event: message_start\n"
    b'data: {"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant",'
    b'"model":"claude-haiku-4-5","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":12,"output_tokens":1}}}\n\n'
)
ANTHROPIC_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
ANTHROPIC_OVERLOADED = (
    b"event: error\n"
    b'data: {"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"},'
    b'"request_id":"req_01"}\n\n'
)
ANTHROPIC_END = (
    b"event: message_delta\n"
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":15}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
OPENAI_END = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
OPENAI_ERROR = (
    b'data: {"error":{"message":"The server is overloaded","type":"server_error","param":null,"code":null}}\n\n'
)
RESPONSES_ERROR = (
    b"event: error\n"
    b'data: {"type":"error","code":"server_is_overloaded","message":"Our servers are currently overloaded.",'
    b'"param":null,"sequence_number":9}\n\n'
)


class FakeProviders:
    """Serves one scenario on a free port of loopback; every path ends in ``/messages``, ``/completions`` or
    ``/responses``."""

    def __init__(
        self, scenario: str = "normal", *, words: tuple[str, ...] = ("Hello", " world", "!"), status: int = 529
    ) -> None:
        assert scenario in SCENARIOS
        self.scenario, self.words, self.status = scenario, words, status
        self.requests: list[dict[str, Any]] = []
        self.connection_closed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> FakeProviders:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._writers:
            self._idle.clear()
            await self._idle.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(
                    line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line
                )
                request = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.requests.append(request)
                if not await self._answer(head, request, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self.connection_closed.set()
            self._idle.set()

    async def _answer(
        self,
        head: bytes,
        request: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False when the connection is not used again."""
        newest = (request.get("messages") or request["input"])[-1]
        last_role = newest.get("role", "tool")
        self._calls = self.scenario == "tool" and "tool_result" not in str(newest) and last_role == "user"
        if self.scenario == "refused" or (self.scenario == "no_prefill" and last_role == "assistant"):
            writer.write(self._refusal(400 if self.scenario == "no_prefill" else self.status))
            await writer.drain()
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        if self.scenario == "hang":
            await reader.read()
            return False
        path = head.split(b" ", 2)[1].rsplit(b"/", 1)[-1]
        events = {b"messages": self._anthropic, b"completions": self._openai}.get(path, self._responses)()
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.002)
        if self.scenario == "hang_mid_stream":
            await reader.read()
            return False
        if self.scenario == "cut":
            writer.transport.abort()
            return False
        writer.write(b"0\r\n\r\n")
        return True

    def _refusal(self, status: int) -> bytes:
        kind, message = {
            400: ("invalid_request_error", "This model does not support assistant message prefill."),
            401: ("authentication_error", "invalid x-api-key"),
            429: ("rate_limit_error", "Number of requests has exceeded your rate limit"),
            503: ("api_error", "Service unavailable"),
            529: ("overloaded_error", "Overloaded"),
        }[status]
        body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        return (
            b"HTTP/1.1 %d Refused\r\ncontent-type: application/json\r\nretry-after-ms: 1\r\n"
            b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
        )

    @property
    def _is_whole(self) -> bool:
        return self.scenario in ("normal", "thinking", "no_prefill", "tool", "cited", "length")

    def _anthropic(self) -> list[bytes]:
        events = [ANTHROPIC_START]
        index = 0
        if self.scenario == "thinking" or self._calls:
            events += _anthropic_block(0, {"type": "thinking", "thinking": "", "signature": ""})
            events += [
                _anthropic_delta(0, {"type": "thinking_delta", "thinking": text}) for text in ("Let me ", "see.")
            ]
            events += [_anthropic_delta(0, {"type": "signature_delta", "signature": "c2ln"}), _anthropic_stop(0)]
            index = 1
        events += [*_anthropic_block(index, {"type": "text", "text": ""}), ANTHROPIC_PING]
        events += [_anthropic_delta(index, {"type": "text_delta", "text": word}) for word in self.words]
        if self.scenario == "cited":
            events.append(_anthropic_delta(index, {"type": "citations_delta", "citation": _ANTHROPIC_CITATION}))
        if self.scenario == "overloaded_mid_stream":
            events.append(ANTHROPIC_OVERLOADED)
        elif self._is_whole:
            events.append(_anthropic_stop(index))
            if self._calls:
                call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
                events += _anthropic_block(index + 1, call)
                events += [
                    _anthropic_delta(index + 1, {"type": "input_json_delta", "partial_json": text})
                    for text in ('{"city":', ' "Paris"}')
                ]
                events.append(_anthropic_stop(index + 1))
            reason = b"tool_use" if self._calls else b"max_tokens" if self.scenario == "length" else b"end_turn"
            events.append(ANTHROPIC_END.replace(b"end_turn", reason))
        return events

    def _openai(self) -> list[bytes]:
        events = [_openai_delta({"role": "assistant", "content": "", "refusal": None})]
        events += [_openai_delta({"content": word}) for word in self.words]
        if self.scenario == "overloaded_mid_stream":
            events.append(OPENAI_ERROR)
        elif self._is_whole:
            if self._calls:
                call = {"index": 0, "id": "call_1", "type": "function"}
                for function in ({"name": "weather", "arguments": '{"city":'}, {"arguments": ' "Paris"}'}):
                    events.append(_openai_delta({"tool_calls": [{**call, "function": function}]}))
            reason = b"tool_calls" if self._calls else b"length" if self.scenario == "length" else b"stop"
            events.append(OPENAI_END.replace(b'"stop"', b'"' + reason + b'"'))
        return events

    def _responses(self) -> list[bytes]:
        if self._calls:
            return _responses_call()
        item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        events = [
            _responses_event("response.created", {"response": _RESPONSE}),
            _responses_event("response.output_item.added", {"output_index": 0, "item": item}),
            _responses_event("response.content_part.added", {**place, "part": part}),
        ]
        events += [
            _responses_event("response.output_text.delta", {**place, "delta": word, "logprobs": []})
            for word in self.words
        ]
        if self.scenario == "overloaded_mid_stream":
            events.append(RESPONSES_ERROR)
        elif self._is_whole:
            text = "".join(self.words)
            annotations = [_RESPONSES_CITATION] if self.scenario == "cited" else []
            whole = {**item, "status": "completed", "content": [{**part, "text": text, "annotations": annotations}]}
            ended: dict[str, Any] = {**_RESPONSE, "status": "completed", "output": [whole], "usage": _USAGE}
            if self.scenario == "length":
                ended |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
            events += [
                _responses_event(
                    "response.output_text.annotation.added",
                    {**place, "annotation_index": number, "annotation": annotation},
                )
                for number, annotation in enumerate(annotations)
            ]
            events += [
                _responses_event("response.output_text.done", {**place, "text": text, "logprobs": []}),
                _responses_event("response.content_part.done", {**place, "part": {**part, "text": text}}),
                _responses_event("response.output_item.done", {"output_index": 0, "item": whole}),
                _responses_event(f"response.{ended['status']}", {"response": ended}),
            ]
        return events


_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "model": "gpt-5.6-sol",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": None,
    "metadata": {},
}
_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 15,
}


_ANTHROPIC_CITATION = {
    "type": "web_search_result_location",
    "cited_text": "It is sunny.",
    "encrypted_index": "abc",
    "title": "Weather",
    "url": "https://example.com/weather",
}
_RESPONSES_CITATION = {
    "type": "url_citation",
    "start_index": 0,
    "end_index": 5,
    "title": "Weather",
    "url": "https://example.com/weather",
}


def _responses_call() -> list[bytes]:
    """A thought that only OpenAI can read, and a call after it."""
    thought = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "secret"}
    call = {"id": "fc_1", "type": "function_call", "status": "in_progress", "arguments": "", "call_id": "call_1"}
    call["name"] = "weather"
    whole = {**call, "status": "completed", "arguments": '{"city": "Paris"}'}
    place = {"item_id": "fc_1", "output_index": 1}
    ended = {**_RESPONSE, "status": "completed", "output": [thought, whole], "usage": _USAGE}
    return [
        _responses_event("response.created", {"response": _RESPONSE}),
        _responses_event("response.output_item.added", {"output_index": 0, "item": thought}),
        _responses_event("response.output_item.done", {"output_index": 0, "item": thought}),
        _responses_event("response.output_item.added", {"output_index": 1, "item": call}),
        _responses_event("response.function_call_arguments.delta", {**place, "delta": '{"city":'}),
        _responses_event("response.function_call_arguments.delta", {**place, "delta": ' "Paris"}'}),
        _responses_event("response.function_call_arguments.done", {**place, "arguments": whole["arguments"]}),
        _responses_event("response.output_item.done", {"output_index": 1, "item": whole}),
        _responses_event("response.completed", {"response": ended}),
    ]


def _responses_event(kind: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": 0, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _anthropic_block(index: int, block: dict[str, Any]) -> list[bytes]:
    return [_anthropic("content_block_start", {"index": index, "content_block": block})]


def _anthropic_delta(index: int, delta: dict[str, Any]) -> bytes:
    return _anthropic("content_block_delta", {"index": index, "delta": delta})


def _anthropic_stop(index: int) -> bytes:
    return _anthropic("content_block_stop", {"index": index})


def _anthropic(kind: str, fields: dict[str, Any]) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _openai_delta(delta: dict[str, Any]) -> bytes:
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
    }
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
