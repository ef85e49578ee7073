"""The action ~/ask: questions about the scene, answered piece by piece beside planning."""

from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.node import Node

from opendrivevla_ros.action import AskScene
from opendrivevla_ros.ros.conversions import header
from opendrivevla_ros.ros.inference import Answer, Inference


class AskServer:
    """One question at a time. inference: the one that answers now, or None while the node is not active.

    A goal stays accepted while the answer streams and is executed at its end: rclpy spins without rest on a coroutine
    that waits.
    """

    def __init__(self, node: Node, inference: Callable[[], Inference | None]) -> None:
        self._inference = inference
        self._goal: Any = None
        self._text = ""
        self._last = Answer(0, done=True)
        self._server = ActionServer(
            node,
            AskScene,
            "~/ask",
            execute_callback=self._finish,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def on_answer(self, answer: Answer) -> None:
        """A piece or the end of the open answer; to be called in the executor's thread."""
        if self._goal is None:
            return
        if answer.piece:
            self._text += answer.piece
            self._goal.publish_feedback(AskScene.Feedback(text=answer.piece))
        if answer.done:
            self._last = answer
            self._goal.execute()

    def _on_accepted(self, goal: Any) -> None:
        inference = self._inference()
        if inference is None:
            self._refuse(goal, "the node is not active; activate it and ask again")
        elif not goal.request.question.strip():
            self._refuse(goal, "the question is empty; ask something")
        elif self._goal is not None or not inference.ask(goal.request.question):
            self._refuse(goal, "another question is being answered; wait for it or cancel it")
        else:
            self._goal, self._text = goal, ""

    def _refuse(self, goal: Any, message: str) -> None:
        def abort(handle: Any) -> AskScene.Result:
            handle.abort()
            return AskScene.Result(success=False, message=message)

        goal.execute(abort)

    def _on_cancel(self, goal: Any) -> CancelResponse:
        inference = self._inference()
        if inference is not None and goal is self._goal:
            inference.cancel_question()
        return CancelResponse.ACCEPT

    def _finish(self, goal: Any) -> AskScene.Result:
        self._goal = None
        answer = self._last
        if goal.is_cancel_requested:
            goal.canceled()
        elif answer.error:
            goal.abort()
        else:
            goal.succeed()
        return AskScene.Result(
            header=header(answer.stamp_ns, ""), answer=self._text, success=not answer.error, message=answer.error
        )
