import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, torch
from workbench import models, tasks
model = models.load("smollm2-135m")
for prompts in (2, 8):
    task = tasks.ioi(model, prompts=prompts, seed=0)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            bits = model(task.clean).numpy().tobytes()
        print(prompts, hashlib.sha256(bits).hexdigest())
"""


@pytest.mark.slow
def test_the_default_model_gives_the_same_bits_with_one_thread_and_two():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    lines = done.stdout.split("\n")[:4]
    assert lines[0] == lines[1]
    assert lines[2] == lines[3]
