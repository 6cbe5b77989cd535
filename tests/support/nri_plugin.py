"""A plugin of NRI, as a program of its own: it writes down what it hears and answers as it was told to.

    python -m tests.support.nri_plugin SOCKET CONFIG      connects
    a launcher in a plugin directory that execs the above  is connected; its CONFIG comes with Configure

CONFIG is JSON: {"index", "name", "log": a file for one JSON line a request, "events": mask, "answers": {method: [a response,
the last one again and again]}, "refuse": {method: text}, "hang": [method], "die": [method], "old": serve StateChange only,
"update": an UpdateContainersRequest to send when the file "<log>.go" appears}. Messages are in protobuf's JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.calls import PLUGIN, RUNTIME
from shim.nri.errors import UNIMPLEMENTED, Refused
from shim.nri.link import Link

if TYPE_CHECKING:
    from shim.nri.session import Called

METHODS = {method.name: method for method in nri.DESCRIPTOR.services_by_name["Plugin"].methods}
NEVER_OLD = {"Configure", "Synchronize", "Shutdown", "CreateContainer", "UpdateContainer", "StopContainer", "StateChange"}


class Plugin:
    """One plugin, from its connection to its end."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.link = Link(plugin=True)
        self.link.serve = self.serve
        self.seen: dict[str, int] = {}

    async def run(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.link, sock=sock)
        register = nri.RegisterPluginRequest(plugin_name=self.config.get("name", ""), plugin_idx=self.config.get("index", ""))
        await self.link.call(RUNTIME, "RegisterPlugin", register, nri.Empty, 10)
        go = asyncio.create_task(self.out_of_turn())
        await self.link.closed.wait()
        go.cancel()
        self.write("closed", {})

    def write(self, method: str, message: dict[str, Any]) -> None:
        if "log" in self.config:
            with open(self.config["log"], "a", encoding="utf-8") as file:
                file.write(json.dumps({"method": method, "message": message}) + "\n")

    async def serve(self, call: Called) -> Any:
        assert call.service == PLUGIN
        name = call.method
        if self.config.get("old") and name not in NEVER_OLD:
            raise Refused(UNIMPLEMENTED, f"{name} is not served")
        method = METHODS[name]
        request = getattr(nri, method.input_type.name).FromString(call.payload)
        if name == "Configure" and request.config:
            self.config |= json.loads(request.config)
        self.write(name, json_format.MessageToDict(request, preserving_proto_field_name=True))
        return await self.answer(name, getattr(nri, method.output_type.name), request)

    async def answer(self, name: str, kind: type[Any], request: Any) -> Any:
        if name in self.config.get("die", []):
            os._exit(1)
        if name in self.config.get("hang", []):
            await asyncio.Event().wait()
        if name in self.config.get("refuse", {}):
            raise Refused(2, self.config["refuse"][name])
        if name == "Configure":
            return nri.ConfigureResponse(events=self.config.get("events", 0))
        if name == "Synchronize":
            return nri.SynchronizeResponse(more=request.more)
        answers = self.config.get("answers", {}).get(name, [{}])
        turn = self.seen.get(name, 0)
        self.seen[name] = turn + 1
        return json_format.ParseDict(answers[min(turn, len(answers) - 1)], kind())

    async def out_of_turn(self) -> None:
        """Ask for an update when told to: once the test has written the request."""
        path = Path(self.config.get("log", "/nowhere") + ".go")
        while True:
            await asyncio.sleep(0.05)
            with contextlib.suppress(FileNotFoundError):
                request = json_format.Parse(path.read_text(), nri.UpdateContainersRequest())
                path.unlink()
                answer = await self.link.call(RUNTIME, "UpdateContainers", request, nri.UpdateContainersResponse, 10)
                self.write("updated", json_format.MessageToDict(answer, preserving_proto_field_name=True))


def main() -> None:
    given = os.environ.get("NRI_PLUGIN_SOCKET")
    if given:
        sock = socket.socket(fileno=int(given))
        config: dict[str, Any] = {}
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(sys.argv[1])
        config = json.loads(sys.argv[2])
    asyncio.run(Plugin(config).run(sock))


if __name__ == "__main__":
    main()
