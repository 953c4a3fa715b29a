"""Jobs in the calling process, for a debugger."""

from functools import partial

from .base import Executor, register_executor


@register_executor('debug')
class DebugExecutor(Executor):
    """One job after another in this process; errors other than a user's go on up."""
    options = dict(debug=True)

    def __str__(self) -> str:
        return 'this process'

    def run(self, controller) -> None:
        while job := controller.next():
            controller.ended(job, job(partial(controller.progress, job)))
