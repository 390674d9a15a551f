"""The study of a search: kills, several workers, budgets, trials that fail or are given up, all with runs that end at once."""

from __future__ import annotations

import json
import threading

import pytest

from crossdistil.core.app.progress import make_console
from crossdistil.core.app.search import Asked, Search
from crossdistil.core.app.search_results import results
from crossdistil.core.app.search_settings import read_settings
from crossdistil.core.app.search_space import space_of
from crossdistil.core.app.search_trial import Ended
from crossdistil.core.errors import CrossdistilError
from crossdistil.tests.searches import BATCH, RATE, Killed, Runs, settings, trials, work

pytestmark = pytest.mark.environment_of("torch", "mindspore")  # whose environment has Optuna


def states(search):
    return [state for _, state, _, _ in trials(search)]


def test_a_killed_and_continued_search_tries_the_same(tmp_path):
    own = settings(tmp_path)
    whole = trials(work(tmp_path / "whole", own, Runs()))
    assert [state for _, state, _, _ in whole].count("complete") >= 4

    with pytest.raises(Killed):
        work(tmp_path / "killed", own, Runs({"0003": "killed"}))
    runs = Runs()
    continued = work(tmp_path / "killed", own, runs)
    assert runs.run[0] == "0003"  # with the settings it had
    assert trials(continued) == whole


def test_a_kill_before_the_trial_is_written_down(tmp_path, monkeypatch):
    own = settings(tmp_path)
    whole = trials(work(tmp_path / "whole", own, Runs()))
    begin = "crossdistil.core.app.search_study.SearchStudy.begin"

    def killed(self, claimed, overrides):
        raise Killed

    work(tmp_path / "killed", settings(tmp_path, trials=5), Runs())
    with monkeypatch.context() as patch:
        patch.setattr(begin, killed)
        with pytest.raises(Killed):
            work(tmp_path / "killed", own, Runs())
    assert trials(work(tmp_path / "killed", own, Runs())) == whole


def test_a_run_that_ended_before_the_kill_is_not_run_again(tmp_path):
    """The kill comes between the result of the run and the word of it to the study: `run_trial` reads the result."""
    from crossdistil.core.app.search_trial import run_trial

    own = settings(tmp_path, trials=1)
    runs = Runs()

    def killed_after(recipe, folder, on, watch, asked):
        runs(recipe, folder, on, watch, asked)
        raise Killed

    with pytest.raises(Killed):
        work(tmp_path / "search", own, killed_after)
    assert [state for _, state, _, _ in trials(work(tmp_path / "search", own, run_trial))] == ["complete"]


def test_workers_never_take_one_trial(tmp_path):
    """Two commands of two workers each on one folder, and every trial waits until four are under way."""
    barrier, runs = threading.Barrier(4, timeout=60), Runs()
    own = settings(tmp_path, trials=12, pruning=False)
    (tmp_path / "search").mkdir()

    def together(*arguments):
        barrier.wait()
        return runs(*arguments)

    searches = [Search(tmp_path / "search", own, 2, make_console(quiet=True), together) for _ in range(2)]
    threads = [threading.Thread(target=search.work, args=(Asked(),)) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs.run) == [f"{number:04d}" for number in range(12)]
    assert states(searches[0]) == ["complete"] * 12


def test_what_is_worked_on_is_not_taken(tmp_path):
    own = settings(tmp_path, trials=5)
    (tmp_path / "search").mkdir()
    first = Search(tmp_path / "search", own, 1, make_console(quiet=True), Runs())
    held = first.study.claim(None)
    first.study.begin(held, ["seed=1"])
    second = Search(tmp_path / "search", own, 1, make_console(quiet=True), Runs())
    other = second.study.claim(None)
    assert (held.number, other.number) == (0, 1)
    held.lock.release()  # as a kill does
    again = second.study.claim(None)
    assert (again.number, again.is_again, again.point) == (0, True, held.point)


def test_what_is_finished_while_another_looks_is_not_taken_again(tmp_path, monkeypatch):
    own = settings(tmp_path, trials=5)
    (tmp_path / "search").mkdir()
    study = Search(tmp_path / "search", own, 1, make_console(quiet=True), Runs()).study
    held = study.claim(None)
    study.begin(held, [])
    seen = study._frozen

    def just_before(state):
        found = seen(state)
        if held.lock._descriptor is not None:
            study.finish(held, "complete", 0.5, 1.0, {}, "")
        return found

    monkeypatch.setattr(study, "_frozen", just_before)
    assert study.claim(None).number == 1


def test_a_trial_of_another_folder_is_left_alone(tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = (
        Search(tmp_path / name, settings(tmp_path, place=name, storage=storage), 1, make_console(quiet=True), Runs())
        for name in ("one", "other")
    )
    held = one.study.claim(None)
    one.study.begin(held, [])
    held.lock.release()
    assert other.study.claim(None).number == 1
    assert one.study.claim(None).number == 0


def test_a_grid_is_tried_whole_and_once(tmp_path):
    grid = space_of({RATE: {"choice": [1e-3, 1e-2]}, BATCH: {"choice": [4, 8, 16]}}, "test", True, "a paper")
    own = settings(tmp_path, grid, trials=None, pruning=False)
    with pytest.raises(Killed):
        work(tmp_path / "search", own, Runs({"0002": "killed"}))
    search = work(tmp_path / "search", own, Runs(), workers=2)
    points = [tuple(point.values()) for _, _, point, _ in trials(search)]
    assert points == [tuple(point.values()) for point in grid.points()]
    assert states(search) == ["complete"] * 6


def test_a_failed_trial_is_not_the_end(tmp_path):
    runs = Runs({"0001": "step 3: the loss is nan", "0002": "it ended with signal SIGKILL"})
    search = work(tmp_path / "search", settings(tmp_path, trials=5), runs)
    assert states(search)[:3] == ["complete", "failed", "failed"] and len(states(search)) == 5
    assert search.study.records()[1].error == "step 3: the loss is nan"


def test_the_first_trial_is_the_recipe_as_it_is(tmp_path):
    search = work(tmp_path / "search", settings(tmp_path, trials=1), Runs())
    assert trials(search)[0][2] == {RATE: 1e-3, BATCH: "8"}
    assert search.is_default(search.study.records()[0])


def test_those_behind_the_median_are_given_up_at_the_same_epoch(tmp_path):
    """Curves with other evaluations than those before: each is judged by what the others had by then."""
    own = settings(tmp_path, trials=6)
    finals = {"0000": 0.8, "0001": 0.7, "0002": 0.9, "0003": 0.85, "0004": 0.6, "0005": 0.95}
    seen = []

    def run(recipe, folder, on, watch, asked):
        value, period = finals[folder.name], 300 if folder.name > "0003" else 1000
        for position in range(period, 3001, period):
            if watch(position, {"accuracy": value * position / 3000}, position == 3000):
                seen.append((folder.name, position))
                return Ended("pruned")
        return Ended("complete", {"student": {"metrics": {"accuracy": value}, "parameters": 1}})

    search = work(tmp_path / "search", own, run)
    # Before epoch 1 the others have no score to compare with; then their median is 0.825 / 3.
    assert seen == [("0004", 1200)]
    assert states(search) == ["complete"] * 4 + ["pruned", "complete"]
    assert trials(search)[4][3] is None


def test_the_last_evaluation_gives_nothing_up(tmp_path):
    runs = Runs(evaluations=1)
    assert set(states(work(tmp_path / "search", settings(tmp_path), runs))) == {"complete"}


def test_minutes_are_counted_over_all_commands(tmp_path):
    search = work(tmp_path / "search", settings(tmp_path, minutes=10, trials=2), Runs())
    study = search.study
    before = study.seconds()
    study._study.set_user_attr("worked/one", [1000.0, 1300.0])
    study._study.set_user_attr("worked/other", [1200.0, 1590.0])  # at the same time, and on
    assert study.seconds() == pytest.approx(before + 590)
    runs = Runs()
    work(tmp_path / "search", settings(tmp_path, minutes=9.8, trials=9), runs)
    assert not runs.run  # the budget is spent
    work(tmp_path / "search", settings(tmp_path, minutes=20, trials=3), runs)
    assert runs.run == ["0002"]


def test_a_trial_that_is_stopped_stays_begun(tmp_path):
    own, asked = settings(tmp_path, trials=3), Asked()
    (tmp_path / "search").mkdir()

    def run(recipe, folder, on, watch, asked_now):
        asked.times = 1  # Ctrl-C
        return Ended("stopped")

    search = Search(tmp_path / "search", own, 1, make_console(quiet=True), run)
    search.work(asked)
    assert states(search) == ["running"]
    runs = Runs()
    assert states(work(tmp_path / "search", own, runs)) == ["complete"] * 3
    assert runs.run == ["0000", "0001", "0002"]


def test_an_interrupted_grid_has_a_report(tmp_path):
    grid = space_of({RATE: {"choice": [1e-3, 1e-2]}, BATCH: {"choice": [4, 8, 16]}}, "test", True, "a paper")
    own, asked = settings(tmp_path, grid, trials=None), Asked()
    (tmp_path / "search").mkdir()
    runs = Runs()

    def run(*arguments):
        ended = runs(*arguments)
        asked.times = 1
        return ended

    search = Search(tmp_path / "search", own, 1, make_console(quiet=True), run)
    search.work(asked)
    assert states(search) == ["complete", *["waiting"] * 5]
    assert results(search)["counts"] == {"complete": 1, "pruned": 0, "failed": 0, "running": 0}


def test_a_storage_that_fails_is_one_line(tmp_path):
    def run(*arguments):
        (tmp_path / "search/study.db").write_bytes(b"no database")  # for a moment it is empty, and so has no table
        return Runs()(*arguments)

    with pytest.raises(CrossdistilError, match="the study in the folder: failed: .*(database|malformed|no such table)"):
        work(tmp_path / "search", settings(tmp_path), run)


def test_settings_are_read_as_they_were_written(tmp_path):
    own = settings(tmp_path, devices=("cpu",), minutes=3.5)
    own.write(tmp_path)
    found = read_settings(tmp_path)
    assert found.recipe.digest() == own.recipe.digest() and found.space.as_data() == own.space.as_data()
    assert (found.devices, found.minutes, found.metric) == (("cpu",), 3.5, "accuracy")
    with pytest.raises(CrossdistilError, match="no search to go on with"):
        read_settings(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("minutes", "x"), ("trials", True), ("devices", None), ("space", [])),
        *(("recipe", 3), ("pruning", 1), ("more", 1), ("seeds", None)),
    ],
)
def test_a_damaged_study_is_one_line(tmp_path, key, value):
    settings(tmp_path).write(tmp_path)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CrossdistilError, match="study.json"):
        read_settings(tmp_path)


def test_settings_that_do_not_fit_each_other_are_a_failed_trial(tmp_path):
    key = "stages.0.train.gradient_accumulation"
    space = space_of({key: {"int": [1, 3]}}, "test")
    search = work(tmp_path / "search", settings(tmp_path, space, trials=8), Runs())
    failed = [record for record in search.study.records() if record.state == "failed"]
    assert failed and all("not a multiple of gradient_accumulation 3" in record.error for record in failed)
