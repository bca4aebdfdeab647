"""A job's output arrives in order, without its secrets, and bounded; and no job is held up by its log."""

import asyncio
import base64
import os
import threading
import time

import pytest

from activities.process.log_capture import LogCapture
from justenough.domain.core.redaction import Redactor
from tests.activities.process.job_process import Runner, is_root


class Pipe:
    """A job's output that a test writes."""

    def __init__(self) -> None:
        self.end, self._start = os.pipe()
        self.texts: list[str] = []
        self.arrived = asyncio.Event()

    async def sink(self, text: str) -> None:
        self.texts.append(text)
        self.arrived.set()

    def write(self, data: bytes) -> None:
        os.write(self._start, data)

    def close(self) -> None:
        os.close(self._start)


async def test_stdout_and_stderr_arrive_in_the_order_they_were_written(run: Runner) -> None:
    script = "for n in 1 2 3; do echo out$n; echo err$n >&2; done; printf 'no newline'"
    assert (await run("sh", "-c", script)).log == "out1\nerr1\nout2\nerr2\nout3\nerr3\nno newline"


async def test_a_delivered_secret_is_redacted_in_what_a_job_prints(run: Runner) -> None:
    secret = "s3cret/with+odd chars"
    code = "import base64, os, sys, time\nfor piece in os.environ['P']:\n  sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.001)\n"
    code += "print(' and', base64.b64encode(('user:' + os.environ['P']).encode()).decode())"
    ran = await run.python(code, env={"P": secret}, secrets=(secret,))
    assert ran.log.startswith("[redacted] and ")
    assert secret not in ran.log
    assert base64.b64encode(f"user:{secret}".encode()).decode()[8:-4] not in ran.log


async def test_a_line_arrives_while_the_job_still_runs() -> None:
    pipe = Pipe()
    capture = await LogCapture.start(pipe.end, Redactor(["hunter22"]), pipe.sink)
    pipe.write(b"step one\n")
    await asyncio.wait_for(pipe.arrived.wait(), 180)
    assert pipe.texts == ["step one\n"]
    pipe.close()
    await capture.finish()


async def test_bytes_that_are_not_text_are_replaced_and_characters_survive_a_cut() -> None:
    pipe = Pipe()
    capture = await LogCapture.start(pipe.end, Redactor([]), pipe.sink)
    pipe.write("zw\u00f6lf ".encode()[:3])
    await asyncio.wait_for(pipe.arrived.wait(), 180)
    pipe.write("zw\u00f6lf ".encode()[3:] + b"\xff\0end \xc3")
    pipe.close()
    await capture.finish()
    assert "".join(pipe.texts) == "zw\u00f6lf \ufffd\ufffdend \ufffd"


async def test_a_flood_of_output_is_cut_at_the_limit_with_one_note_and_does_not_hold_the_job_up(run: Runner) -> None:
    texts: list[str] = []

    async def sink(text: str) -> None:
        texts.append(text)

    uid = run.settings.job_uid_base + 2000 if is_root() else os.geteuid()
    process = await run.start("sh", "-c", "yes 'a line of no interest' | head -c 30000000; exit 3", uid=uid)
    capture = await LogCapture.start(process.output, Redactor(["hunter22"]), sink, max_bytes=1_000_000)
    assert await process.wait() == 3
    await capture.finish()
    whole = "".join(texts)
    assert capture.bytes_seen == 30_000_000
    assert whole.endswith("\n[output truncated: more than 1,000,000 bytes]\n")
    assert whole.count("output truncated") == 1
    assert 1_000_000 <= len(whole) < 1_000_200


async def test_output_cut_at_the_limit_shows_no_part_of_a_secret() -> None:
    pipe = Pipe()
    capture = await LogCapture.start(pipe.end, Redactor(["hunter22-and-more"]), pipe.sink, max_bytes=20)
    pipe.write(b"password: hunter22-and-more")
    pipe.close()
    await capture.finish()
    assert "".join(pipe.texts).startswith("password: \n[output truncated: more than")


async def test_the_event_loop_goes_on_while_a_batch_is_searched_and_a_secret_is_learnt() -> None:
    searching, learnt = threading.Event(), threading.Event()

    class SlowRedactor(Redactor):
        def feed(self, chunk: bytes) -> bytes:
            searching.set()
            # On the event loop this would wait in vain for the loop itself.
            assert learnt.wait(60)
            return super().feed(chunk)

    pipe, redactor = Pipe(), SlowRedactor([])
    capture = await LogCapture.start(pipe.end, redactor, pipe.sink)
    pipe.write(b"hunter22\n")
    assert await asyncio.to_thread(searching.wait, 60)
    redactor.learn(["hunter22"])
    learnt.set()
    pipe.close()
    await capture.finish(within=60)
    assert pipe.texts == ["[redacted]\n"]


async def test_batches_are_bounded(run: Runner) -> None:
    pipe = Pipe()
    capture = await LogCapture.start(pipe.end, Redactor([]), pipe.sink)
    os.set_blocking(pipe._start, True)
    await asyncio.to_thread(pipe.write, b"x" * 300_000)
    pipe.close()
    await capture.finish()
    assert sum(map(len, pipe.texts)) == 300_000
    assert max(map(len, pipe.texts)) <= 64 * 1024


async def test_a_failing_sink_does_not_hold_the_job_up_and_its_error_is_raised_at_the_end(run: Runner) -> None:
    async def broken(text: str) -> None:
        raise ConnectionError("the store is away")

    uid = run.settings.job_uid_base + 2001 if is_root() else os.geteuid()
    process = await run.start("sh", "-c", "head -c 3000000 /dev/zero; exit 4", uid=uid)
    capture = await LogCapture.start(process.output, Redactor([]), broken)
    assert await process.wait() == 4
    with pytest.raises(ConnectionError, match="the store is away"):
        await capture.finish()


async def test_a_pipe_that_another_process_keeps_open_is_given_up_in_time() -> None:
    pipe = Pipe()
    capture = await LogCapture.start(pipe.end, Redactor(["hunter22"]), pipe.sink)
    pipe.write(b"said, then hunt")
    started = time.monotonic()
    await capture.finish(within=0.7)
    assert time.monotonic() - started < 60
    assert "".join(pipe.texts) == "said, then hunt"
    pipe.close()
