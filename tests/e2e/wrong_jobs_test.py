"""Wrong job files: each is refused with precise errors (file, line, column, field, what is allowed), and nothing is created."""

from e2e_case import E2ECase, main

GOOD = """name: fine
task:
  name: digits_mlp
  options: {data: digits.csv}
resources:
  ranks: 2
runner:
  steps: 100
  optim:
    type: adamw
    lr: 0.001
"""


def change(old, new):
    assert old in GOOD, old
    return GOOD.replace(old, new)


# what is wrong -> (the file, "line:column: field: the beginning of what is said")
WRONG = {
    # names and structure
    "unknown key": (GOOD + "taks: 1\n", '12:1: taks: unknown key, did you mean "task"?'),
    "unknown key below": (change("ranks: 2", "ranks: 2\n  rank: 3"), '7:3: resources.rank: unknown key, did you mean "ranks"?'),
    "unknown runner key": (change("steps: 100", "step: 100"), '8:3: runner.step: unknown key, did you mean "steps"?'),
    "unknown optimizer option": (change("    lr: 0.001", "    rl: 0.001"), "11:5: runner.optim.rl: unknown key"),
    "option of another optimizer": (change("    lr: 0.001", "    momentum: 0.9"), "11:5: runner.optim.momentum: "),
    "unknown optimizer": (change("adamw", "adamx"), "10:5: runner.optim.type: found \"adamx\""),
    "unknown schedule": (GOOD + "  sched: {type: cosin}\n", "12:11: runner.sched.type: found \"cosin\""),
    "duplicate key": (GOOD + "name: again\n", "12:1: name: the key stands twice"),
    "duplicate key below": (change("    lr: 0.001", "    lr: 0.001\n    lr: 0.002"), "12:5: runner.optim.lr: the key stands twice"),
    "a list": ("- name: x\n", "1:1: expected a map of fields"),
    "a scalar": ("just text\n", "1:1: expected a map of fields"),
    "empty": ("", "1:1: the file is empty"),
    "only a comment": ("# nothing\n", "1:1: the file is empty"),
    "two documents": (GOOD + "---\nname: second\n", "13:1: a second document begins here"),
    "a key that is a list": (GOOD + "? [a, b]\n: c\n", "12:3: a key must be a plain name"),
    "a section that is text": (change("resources:\n  ranks: 2", "resources: two"), '5:1: resources: found "two" (string); allowed: a map'),
    # syntax
    "tab": (change("  ranks: 2", "\tranks: 2"), "6:7: not YAML"),
    "open quote": (change("name: fine", 'name: "fine'), 'name: found "fine task:'),
    "open bracket": (change("{data: digits.csv}", "{data: digits.csv"), "not YAML"),
    "bad indentation": (change("    lr: 0.001", "   lr: 0.001"), "11:4: not YAML"),
    "unknown alias": (change("steps: 100", "steps: *many"), "8:10: not YAML"),
    # names
    "no name": (change("name: fine\n", ""), "1:1: name: is missing"),
    "empty name": (change("name: fine", 'name: ""'), '1:1: name: found ""'),
    "name with slash": (change("name: fine", "name: a/b"), '1:1: name: found "a/b"'),
    "name with dots only": (change("name: fine", "name: .."), '1:1: name: found ".."'),
    "name in capitals": (change("name: fine", "name: Fine"), '1:1: name: found "Fine"'),
    "long name": (change("name: fine", "name: " + "x" * 10240), "1:1: name: found \"xxx"),
    "control character": (change("name: fine", 'name: "a\\u0007b"'), '1:1: name: found "a\\u0007b"'),
    "name that is a number": (change("name: fine", "name: 12"), "1:1: name: found 12 (integer); allowed: text"),
    # missing
    "no task": (change("task:\n  name: digits_mlp\n  options: {data: digits.csv}\n", ""), "1:1: task: is missing"),
    "no task name": (change("  name: digits_mlp\n", ""), "2:1: task.name: is missing"),
    "no runner": (GOOD[: GOOD.index("runner:")], "1:1: runner: is missing"),
    "neither steps nor epochs": (change("  steps: 100\n", ""), "7:1: runner"),
    "steps and epochs": (change("steps: 100", "steps: 100\n  epochs: 3"), "runner"),
    # types and ranges
    "text for a number": (change("lr: 0.001", "lr: fast"), '11:5: runner.optim.lr: found "fast" (string); allowed: number'),
    "negative lr": (change("lr: 0.001", "lr: -1"), "11:5: runner.optim.lr: found -1 (integer); allowed: number >= 0"),
    "nan": (change("lr: 0.001", "lr: .nan"), "11:9: runner.optim.lr: .nan is not allowed"),
    "infinity": (change("lr: 0.001", "lr: .inf"), "11:9: runner.optim.lr: .inf is not allowed"),
    "too large for a double": (change("lr: 0.001", "lr: 1e999"), "11:9: runner.optim.lr: 1e999 is too large"),
    "fraction for an integer": (change("steps: 100", "steps: 1.5"), "8:3: runner.steps: found 1.5"),
    "no steps": (change("steps: 100", "steps: 0"), "8:3: runner.steps: found 0 (integer); allowed:"),
    "huge integer": (change("steps: 100", "steps: 99999999999999999999999"), "8:3: runner.steps: found"),
    "no ranks": (change("ranks: 2", "ranks: 0"), "6:3: resources.ranks: found 0 (integer); allowed: integer from 1 to 4096"),
    "negative ranks": (change("ranks: 2", "ranks: -3"), "6:3: resources.ranks: found -3"),
    "too many ranks": (change("ranks: 2", "ranks: 100000"), "6:3: resources.ranks: found 100000"),
    "unknown device": (change("ranks: 2", "ranks: 2\n  device: tpu"), '7:3: resources.device: found "tpu"; allowed: cpu, cuda'.replace('"tpu";', '"tpu" (string);')),
    "priority": (GOOD + "priority: high\n", '12:1: priority: found "high"'),
    "boolean": (GOOD + "preemptible: maybe\n", '12:1: preemptible: found "maybe" (string); allowed: true, false'),
    "yes is no boolean": (GOOD + "preemptible: yes\n", '12:1: preemptible: found "yes"'),
    "duration without unit": (GOOD + "timeouts: {join: 30}\n", "12:12: timeouts.join: found 30 (integer); allowed: a duration"),
    "negative duration": (GOOD + "timeouts:\n  hang: -5s\n", '13:3: timeouts.hang: found "-5s"'),
    "endless duration": (GOOD + "timeouts:\n  hang: inf\n", '13:3: timeouts.hang: found "inf"'),
    "unknown fencing": (GOOD + "fencing: loose\n", '12:1: fencing: found "loose" (string); allowed: generation, strict'),
    "unknown cause": (GOOD + "restart:\n  budgets:\n    sigkill: 3\n", "14:5: restart.budgets.sigkill: unknown key"),
    "budget": (GOOD + "restart: {budgets: {signal: -2}}\n", "12:21: restart.budgets.signal: found -2"),
    "jitter": (GOOD + "restart:\n  backoff_jitter: 1.5\n", "13:3: restart.backoff_jitter: found 1.5"),
    "label": (GOOD + "labels: {team: [a]}\n", "12:10: labels.team: found"),
    "name of a variable": (GOOD + "env:\n  2FAST: x\n", "13:3: env.2FAST: a name has letters"),
    "variable that is not there": (GOOD + "env: {TOKEN: {from_env: ATHANOR_NO_SUCH_VARIABLE}}\n", "12:7: env.TOKEN: the environment has no"),
    "file that is not there": (GOOD + "env: {TOKEN: {from_file: no/such/file}}\n", "12:7: env.TOKEN: cannot read"),
    "betas": (change("    lr: 0.001", "    betas: [0.9]"), "runner.optim.betas"),
    "beta": (change("    lr: 0.001", "    betas: [0.9, 1.0]"), "11:18: runner.optim.betas[1]: found 1"),
    "element of a list": (change("    lr: 0.001", "    param_groups:\n      - pattern: bias\n      - pattern: norm\n        lr: -1"),
                          "14:9: runner.optim.param_groups[1].lr: found -1"),
    "options that are a list": (change("{data: digits.csv}", "[1, 2]"), "4:3: task.options: found [1,2] (array); allowed: a map"),
    # hostile
    "billion laughs": ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"{n}: &{n} [{','.join(['*' + p] * 10)}]\n" for p, n in zip("abcdefgh", "bcdefghi")),
                       "too large: at most"),
    "deep nesting": ("name: " + "[" * 200 + "]" * 200 + "\n", "too large: at most"),
    "very deep nesting": ("name: " + "[" * 50000 + "]" * 50000 + "\n", ""),
    "too big": (GOOD + "#" + "x" * (1 << 20) + "\n", "a job file has at most"),
    "zero bytes": (GOOD + "\0\0\0", ""),
    "not UTF-8": (b"name: \xff\xfe\x00\n", ""),
}
SETS = {
    "runner.optim.lr=-1": "--set runner.optim.lr: runner.optim.lr: found -1",
    "runner.optim.lrr=1": "unknown key",
    "runner..lr=1": "empty part",
    "no-equals": "expected field=value",
    "=3": "expected field=value",
    "name=A/B": 'name: found "A/B"',
    "resources.ranks=many": 'found "many"',
    "name.below=1": "nothing can be set below",
}


class WrongJobsTest(E2ECase):
    def refused(self, path, *args):
        done = self.cluster.cli("job", "submit", path, *args, check=False)
        self.assertEqual(done.returncode, 2, f"{done.stdout}{done.stderr}")
        self.assertEqual(done.stdout, "")
        self.assertLess(len(done.stderr), 4000)
        return done.stderr

    def test_each_is_refused_precisely_and_nothing_is_created(self):
        self.assertGreaterEqual(len(WRONG), 40)
        for what, (text, said) in WRONG.items():
            with self.subTest(what):
                path = self.folder / "wrong.yaml"
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
                self.assertIn(said, self.refused(path))
                if said[:1].isdigit():
                    self.assertIn(f"{path}:{said}", self.refused(path))
        path = self.folder / "good.yaml"
        path.write_text(GOOD)
        for assignment, said in SETS.items():
            with self.subTest(assignment):
                self.assertIn(said, self.refused(path, "--set", assignment))
        self.assertIn("is a folder", self.refused(self.folder))
        missing = self.cluster.cli("job", "submit", self.folder / "missing.yaml", check=False)
        self.assertNotEqual(missing.returncode, 0)
        self.assertIn("missing.yaml", missing.stderr)
        self.assertEqual(self.cluster.cli("job", "list", parse=True).get("jobs", []), [])

    def test_all_mistakes_of_a_file_are_reported_at_once(self):
        path = self.folder / "many.yaml"
        path.write_text(GOOD.replace("ranks: 2", "ranks: 0").replace("lr: 0.001", "lr: x").replace("name: fine", "name: A"))
        said = self.refused(path)
        for field in ("name", "resources.ranks", "runner.optim.lr"):
            self.assertIn(f": {field}: found", said)


if __name__ == "__main__":
    main()
