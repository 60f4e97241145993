"""The frames between an agent and the clients of Cloudflare's Agents SDK: `AgentClient` and `useAgent`.

JSON text frames at ``/agents/{class in kebab case}/{name}`` (npm `agents` 0.21.0 and 0.32.0). On connect the
server sends, in this order, who it is, its state (where it has one) and the MCP servers that it knows (none)::

    {"type":"cf_agent_identity","name":"n","agent":"my-agent","stateFollows":true?}
    {"type":"cf_agent_state","state":...}
    {"type":"cf_agent_mcp_servers","mcp":{...}}

Both ways::

    {"type":"cf_agent_state","state":...}                      the whole state, each time
    {"type":"cf_agent_state_error","error":"..."}              to the client whose state was refused
    {"type":"rpc","id":"...","method":"...","args":[...]}      a client's call
    {"type":"rpc","id":"...","success":true,"result":...,"done":false}    a value of a streaming call
    {"type":"rpc","id":"...","success":true,"result":...,"done":true}     the result, or a stream's end
    {"type":"rpc","id":"...","success":false,"error":"..."}

Whatever else a client sends is the application's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .json_text import encode_json

REQUEST_ID_BYTES_MAX = 256
"""Longest id that a client may give a call or a chat request, in bytes of UTF-8: a UUID has 36."""

STATE_REJECTED = "State update rejected"
"""What a client is told whose state the agent refuses."""

READ_ONLY = "Connection is readonly"
"""What a client is told that may not change the state."""


class _Frame(msgspec.Struct, rename="camel", tag_field="type", omit_defaults=True, frozen=True):
    """What all of the server's frames share."""


class IdentityFrame(_Frame, tag="cf_agent_identity", frozen=True):
    """Who the client has reached; with ``state_follows`` it is not ready before the state is there."""

    name: str
    agent: str
    state_follows: bool = False


class StateFrame(_Frame, tag="cf_agent_state", frozen=True):
    """The whole state."""

    state: Any


class StateErrorFrame(_Frame, tag="cf_agent_state_error", frozen=True):
    """This client's state was refused; nobody else has seen it."""

    error: str


class _Result(msgspec.Struct, tag_field="type", tag="rpc", frozen=True):
    """A value that a call gave. No field has a default: clients look for ``done``, and null is a result."""

    id: str
    success: bool
    result: Any
    done: bool


class _Failure(msgspec.Struct, tag_field="type", tag="rpc", frozen=True):
    id: str
    success: bool
    error: str


MCP_SERVERS = b'{"type":"cf_agent_mcp_servers","mcp":{"servers":{},"tools":[],"prompts":[],"resources":[]}}'
"""The MCP servers that an agent knows: none."""


def identity_frame(name: str, agent: str, *, state_follows: bool) -> bytes:
    """The first frame; ``agent`` is the class in kebab case."""
    return encode_json(IdentityFrame(name, agent, state_follows))


def state_frame(state: Any) -> bytes:
    """The whole state (or, as `msgspec.Raw`, its JSON)."""
    return encode_json(StateFrame(state))


def state_error_frame(error: str) -> bytes:
    """Why a client's state was refused."""
    return encode_json(StateErrorFrame(error))


def result_frame(call_id: str, result: Any, *, done: bool = True) -> bytes:
    """The result of a call; with ``done=False`` one value of a streaming call.

    Raises:
        LocalProtocolError: the value has no JSON.
    """
    return encode_json(_Result(call_id, True, result, done))


def failure_frame(call_id: str, error: str) -> bytes:
    """Why a call failed."""
    return encode_json(_Failure(call_id, False, error))


class SetState(msgspec.Struct, tag_field="type", tag="cf_agent_state", frozen=True):
    """A client gives the agent this state."""

    state: Any


class Call(msgspec.Struct, tag_field="type", tag="rpc", frozen=True):
    """A client calls a method of the agent."""

    id: str
    method: str
    args: list[Any]


AgentCommand: TypeAlias = SetState | Call

_commands: msgspec.json.Decoder[AgentCommand] = msgspec.json.Decoder(AgentCommand)


def parse_agent_frame(data: str | bytes) -> AgentCommand | None:
    """What a client asks the agent's framework for. None: the frame is the application's.

    Like Cloudflare's own server, this refuses nothing: a frame that is not quite one of the protocol (a call
    whose ``args`` are no array, an id that is too long) goes to the application as it is.
    """
    if not isinstance(data, str):
        return None  # binary frames are never of this protocol
    try:
        command = _commands.decode(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(command, Call) and (not command.id or len(command.id.encode()) > REQUEST_ID_BYTES_MAX):
        return None
    return command


def kebab_case(class_name: str) -> str:
    """A class's name in addresses: ``ChatRoom`` is ``chat-room``, ``CHAT_ROOM`` and ``Chat_room`` too.

    The clients make it from the name that they are given, by these rules.
    """
    if class_name == class_name.upper() and class_name != class_name.lower():
        return class_name.lower().replace("_", "-")
    words = "".join(f"-{letter.lower()}" if "A" <= letter <= "Z" else letter for letter in class_name)
    return words.removeprefix("-").replace("_", "-").removesuffix("-")
