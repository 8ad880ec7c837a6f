"""The command under test, called as a user calls it."""

import json
import pathlib
import subprocess
import tempfile

from safetensors.numpy import load_file, save_file


class Cambium:
    def __init__(self, path, seconds=300):
        self.path, self.seconds = str(path), seconds

    def run(self, *arguments, stdin=None):
        """Standard output; an error's one line is raised."""
        done = subprocess.run(
            [self.path, *map(str, arguments)], capture_output=True, text=True, timeout=self.seconds, input=stdin
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"{arguments[0]}: exit status {done.returncode}")
        return done.stdout

    def json(self, *arguments, stdin=None):
        return json.loads(self.run(*arguments, "--json", "--quiet", stdin=stdin))

    def forward(self, model, inputs, *options):
        """Outputs by name, of numpy inputs by name."""
        with tempfile.TemporaryDirectory() as folder:
            given, made = pathlib.Path(folder, "in.safetensors"), pathlib.Path(folder, "out.safetensors")
            save_file(inputs, given)
            self.run("forward", model, "--input", given, "--output", made, *options, "--quiet")
            return load_file(made)

    def greedy(self, model, ids, n, *options):
        ids = ",".join(map(str, ids))
        return self.json("generate", model, "--ids", ids, "--greedy", "--ignore-eos", "--max-new", n, *options)["ids"]
