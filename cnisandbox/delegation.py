"""Address plugins: ours run in this process, others are executed by the delegate worker.

Privilege: none, here and there.

Source: CNI specification 1.1.0, section 4, "Plugin Delegation".
"""

import os
from collections.abc import Callable

from cnisandbox.boundary.delegate import Finished, Found, find_plugin, is_plugin_name, run_plugin
from cnisandbox.boundary.sandbox import Worker
from cnisandbox.cni.output import error_from
from cnisandbox.cni.result import Result, parse_result
from cnisandbox.errors import InvalidConfig, IoFailure, quoted
from cnisandbox.hints import TYPE_CHECKING
from cnisandbox.marks import plugin_at_end

if TYPE_CHECKING:
    from cnisandbox.plugin import Call, Plugin


class Ipam:
    """The address plugin that a netconf names.

    Args:
        call: The call that it serves.
        own: Address plugins of ours.
        worker: The delegate worker.
    """

    def __init__(self, call: "Call", own: "tuple[type[Plugin], ...]", worker: Worker | None) -> None:
        self._call = call
        self._own = own
        self._worker = worker
        self._field = call.config["ipam"]["type"]
        self._type = self._field.string()
        self._found: _Executable | _InProcess | None = None
        self._asked: Callable[[], Found] | None = None
        self._answer: Found | None = None

    def inquire(self) -> None:
        """Have the plugin looked for, without waiting for the answer; what is wrong is said when it is used.

        A plugin that has none of ours to use may be one itself, and asks for nothing.
        """
        if self._own and self._worker is not None and is_plugin_name(self._type):
            self._asked = self._ask(self._worker)

    def settle(self) -> None:
        """Wait for the answer, before the delegate worker is asked something else."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._answer = asked()

    def _ask(self, worker: Worker) -> "Callable[[], Found]":
        return worker.start(find_plugin, list(self._call.request.plugin_dirs), self._type)

    @property
    def is_configured(self) -> bool:
        """Whether the netconf names one."""
        return bool(self._type)

    @property
    def is_in_process(self) -> bool:
        """Whether it is one of ours, which is not executed and waits for nobody."""
        return self.is_configured and isinstance(self._plugin(), _InProcess)

    def add(self) -> Result:
        """Get addresses; what was got is given back when the ADD fails later, or has failed half-way.

        Order: after it is sure that the attachment does not exist.

        Returns:
            The result, without interfaces.
        """
        return self._plugin().add()

    def delete(self) -> None:
        """Give the addresses back."""
        self._plugin().forward("DEL")

    def check(self) -> None:
        """Have it check what it gave."""
        self._plugin().forward("CHECK")

    def gc(self) -> None:
        """Have it collect garbage."""
        self._plugin().forward("GC")

    def status(self) -> None:
        """Ask whether it could serve an ADD."""
        self._plugin().forward("STATUS")

    def _plugin(self) -> "_Executable | _InProcess":
        if self._found is None:
            self._found = self._look_up()
        return self._found

    def _look_up(self) -> "_Executable | _InProcess":
        """Find the plugin in CNI_PATH; one of ours, installed or missing there, needs no process."""
        name = self._type
        if not is_plugin_name(name):
            raise self._field.error(f"{quoted(name)} cannot be the name of a plugin", "it is looked for in CNI_PATH")
        if self._worker is None:
            raise RuntimeError("the plugin delegates without saying so in `needs`")
        self.settle()
        found = self._answer or self._ask(self._worker)()
        # A launcher that `cnisandbox install` has made says whose it is, whatever its own name.
        plugin = plugin_at_end(found.tail) if found.path else name
        for own in self._own:
            if own.name == plugin:
                return _InProcess(own, self._call.for_delegate(own))
        if found.path and plugin:  # a launcher can neither start the interpreter there nor become root
            raise self._field.error(f"{quoted(name)} is {plugin} of cnisandbox, which gives no addresses")
        if not found.path:
            where = ":".join(self._call.request.plugin_dirs) or "CNI_PATH, which is empty"
            raise InvalidConfig(
                f"ipam.type: plugin {quoted(name)} was not found in {where}",
                "install it there, or add its directory to CNI_PATH",
            )
        return _Executable(name, found.path, self._worker, self._call)


class _InProcess:
    """An address plugin of ours."""

    def __init__(self, plugin: "type[Plugin]", call: "Call") -> None:
        self._plugin = plugin()
        self._call = call

    def add(self) -> Result:
        return self._plugin.add(self._call)

    def forward(self, verb: str) -> None:
        method = {
            "DEL": self._plugin.delete,
            "CHECK": self._plugin.check,
            "GC": self._plugin.gc,
            "STATUS": self._plugin.status,
        }[verb]
        method(self._call)


class _Executable:
    """An address plugin that is not ours."""

    def __init__(self, name: str, path: str, worker: Worker, call: "Call") -> None:
        self._name = name
        self._path = path
        self._worker = worker
        self._call = call

    def add(self) -> Result:
        # ORDER: before: what failed half-way is given back too, as the specification asks. The caller has made sure
        # that the interface is not there yet, so it is never a living attachment whose addresses go.
        self._call.undo.push(self.forward, "DEL")
        finished = self._run("ADD")
        return parse_result(finished.stdout, self._call.request.netconf.version)

    def forward(self, verb: str) -> None:
        self._run(verb)

    def _run(self, verb: str) -> Finished:
        """Execute it.

        Raises:
            DelegateFailed: it reported an error, which is passed on as it is.
            IoFailure: it failed without saying why.
        """
        variables = {**os.environ, "CNI_COMMAND": verb}
        finished = self._worker.call(run_plugin, self._path, variables, self._call.request.netconf.raw)
        for line in finished.stderr.decode("utf-8", "replace").splitlines():
            self._call.warn(f"{self._name}: {line}")
        if finished.status == 0:
            return finished
        reported = error_from(finished.stdout)
        if reported is not None:
            raise reported
        said = (finished.stderr or finished.stdout).decode("utf-8", "replace").strip()
        raise IoFailure(
            f"run ipam plugin {quoted(self._name)} ({verb}): it ended with {_ending(finished.status)}",
            said or "it runs as the service user with no capability, and can write to the state directories only",
        )


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
