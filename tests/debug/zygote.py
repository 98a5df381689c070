"""A process that has imported TensorFlow and forks once for each run, which saves the import.

It never runs an op itself: a fork of a process with a live TensorFlow context hangs. One
specification a line on stdin, one exit code a line on stdout.
"""

import json
import os
import sys

import tensorflow as tf  # noqa: F401

from headstart.debug.running.child import RunSpec, run_spec


def run_forked(fields: dict) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            run_spec(RunSpec(**{**fields, "arguments": tuple(fields["arguments"])}))
            code = 0
        finally:
            os._exit(code)  # the dump is flushed; what TensorFlow does at exit may hang
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


for line in sys.stdin:
    print(run_forked(json.loads(line)), flush=True)
