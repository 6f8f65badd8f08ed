"""What do the figures of a study say to a reader who sees nothing else? Sentences, which claim no more than the verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dasd.report.data import metrics
from dasd.study.claims import NOT_LOWER

MANY = 8  # more arms than that are no sentence: the table has them
BAR = "\\|"  # in a table of Markdown
Record = dict[str, Any]


def sentences(found: Record) -> list[str]:
    """The primary outcome first, task by task, then the secondary ones, then how the plan was kept."""
    said = [*_unfinished(found), *_primary(found), *_better(found), *_pairs(found), *_secondary(found)]
    said += [*_fallen(found), *_apart_in_settings(found), *_at_the_end(found), *_short_of_seeds(found)]
    said += [sentence for kind in ("prediction", "gain_prediction") if found.get(kind) for sentence in found[kind]["sentences"]]
    return [*said, _plan(found)]


def _unfinished(found: Record) -> list[str]:
    progress = found["progress"]
    if progress["done"] == progress["cells"]:
        return []
    failed = f", {progress['failed']} failed" if progress["failed"] else ""
    return [
        f"The study is not finished: {progress['done']} of {progress['cells']} cells are done{failed}. "
        "What follows is provisional."
    ]


def _primary(found: Record) -> list[str]:
    reference, avg, said = found["reference"], name_of("avg", found["num_samples"]), []
    effects = {entry["task"]: entry["effect"] for entry in found["minimum_effect"]}
    for task in found["tasks"]:
        rows = [row for row in found["results"] if row["task"] == task and row["own"]]
        told = {
            key: [row for row in rows if row["avg"]["verdict"] == key]
            for key in ("above", "below", "undecided", "one seed", "unknown")
        }
        for key in ("above", "below"):
            for row in told[key]:
                change = difference(row["avg"]["difference"], avg)
                said.append(f"Supported, on {task}: {row['arm']} is {key} {reference} by {change}.")
        if told["undecided"]:
            effect = effects.get(task)
            seen = f" {_can_find(effect)}" if effect is not None else ""
            other = "any other" if told["above"] or told["below"] else "any"
            said.append(
                f"Not supported, on {task}: {other} difference from {reference}. Seen: {_seen(told['undecided'], avg)}. "
                f"That is no evidence that there is none.{seen}"
            )
        if told["one seed"]:
            names = ", ".join(row["arm"] for row in told["one seed"])
            said.append(
                f"Not supported, on {task}: anything about {names}; one pair of seeds says nothing about the noise of training."
            )
        if told["unknown"]:
            names = ", ".join(row["arm"] for row in told["unknown"])
            said.append(f"Unknown, on {task}: {names}; no seed is done for both it and {reference}.")
    return said


def _seen(rows: Sequence[Record], avg: str) -> str:
    """Differences of all rows; of MANY the ends, lowest and highest."""
    shown = [(row["avg"]["difference"]["mean"], f"{row['arm']} {difference(row['avg']['difference'], avg)}") for row in rows]
    if len(shown) <= MANY:
        return "; ".join(text for _, text in shown)
    (_, low), (_, high) = min(shown), max(shown)
    return f"of {len(shown)} arms from {low} to {high}, the others in the table"


def _better(found: Record) -> list[str]:
    """Nothing where nothing is known of Pass@k."""
    if not any(row["pass"] and row["pass"]["difference"] for row in found["results"] if row["own"]):
        return []
    passed, reference = f"Pass@{found['num_samples']}", found["reference"]
    where = "on every task" if len(found["tasks"]) > 1 else f"on {found['tasks'][0]}"
    names = ", ".join(of["arm"] for of in found["better"] if of["better"])
    kept = [
        f"on {task} {', '.join(arms)}"
        for task in found["tasks"]
        if (arms := [of["arm"] for of in found["better"] if task in of["not_lower"]])
    ]
    return [
        f"Better than {reference} {where} (above it, and {passed} not lower by {NOT_LOWER} or more): {names or 'no arm'}.",
        f"{passed} is shown not to be lower than {reference}'s by {NOT_LOWER} or more: {'; '.join(kept) or 'of no arm'}.",
    ]


def _pairs(found: Record) -> list[str]:
    said = []
    for pair in found["pairs"]:
        of = pair["difference"]
        low, high = min(of["low"], of["resampled"][0]), max(of["high"], of["resampled"][1])
        seeds = "1 seed" if of["seeds"] == 1 else f"{of['seeds']} seeds"
        said.append(
            f"Not tested, on {pair['task']}: {pair['arm']} minus {pair['other']} {signed(of['mean'], low, high)} "
            f"(Avg@{found['num_samples']}, {seeds}, the outer ends of both intervals)."
        )
    return said


def _secondary(found: Record) -> list[str]:
    """The clear ones each, the others by their number."""
    reference, said = found["reference"], []
    rows = [
        (row, kind) for row in found["results"] for kind in ("avg", "pass") if row[kind] and (kind == "pass" or not row["own"])
    ]
    for row, kind in rows:
        if row[kind]["verdict"] in ("above", "below"):
            change = difference(row[kind]["difference"], name_of(kind, found["num_samples"]))
            where = row["task"] if row["own"] else f"{row['task']}, {row['set']}"
            said.append(f"Secondary, on {where}: {row['arm']} is {row[kind]['verdict']} {reference} by {change}.")
    undecided = sum(row[kind]["verdict"] == "undecided" for row, kind in rows)
    tested = undecided + len(said)
    if undecided:
        said.append(
            f"Secondary: of {tested} other comparisons ({_what(rows)}; a family of their own) {undecided} are undecided."
        )
    return said


def _what(rows: Sequence[tuple[Record, str]]) -> str:
    kinds = {kind for _, kind in rows}
    others = len({(row["task"], row["set"]) for row, _ in rows if not row["own"]})
    parts = [*(["Pass@k"] if "pass" in kinds else []), *([f"{others} other evaluation sets"] if others else [])]
    return " and ".join(parts)


def _fallen(found: Record) -> list[str]:
    return [
        f"Training made the model worse in {len(of['seeds'])} of {of['cells']} runs of {of['arm']} on {of['task']} (reward in "
        f"the last fifth of the steps under half of the first's; seed {', '.join(map(str, of['seeds']))})."
        for of in found["fallen"]
    ]


def _apart_in_settings(found: Record) -> list[str]:
    """What the search chose for an arm and not for the reference: a difference between them is not of the methods alone."""
    reference, said = found["reference"], []
    for task in found["tasks"]:
        choices = _settled(found, task)
        for key, theirs in choices[reference]["chosen"].items() if reference in choices else ():
            apart = [choice for choice in choices.values() if choice["chosen"].get(key, theirs) != theirs]
            names = ", ".join(f"{each['arm']} {each['chosen'][key]} (ahead by {_lead(each, key, theirs)})" for each in apart)
            if names:
                said.append(
                    f"Not of the method alone, on {task}: {reference} runs with {key} {theirs}, and by the search's choice on "
                    f"validation problems {names}."
                )
    for task, key in dict.fromkeys((each["task"], each["key"]) for each in found.get("apart", ())):
        same = [each for each in found["apart"] if (each["task"], each["key"]) == (task, key)]
        others = ", ".join(f"{each['arm']} with {each['value']}" for each in same)
        said.append(f"Not of the method alone, on {task}: {reference} runs with {key} {same[0]['reference']}, {others}.")
    return said


def _at_the_end(found: Record) -> list[str]:
    """Arms for which the search took the largest or smallest number that it tried: there may be better ones beyond."""
    said = []
    for task in found["tasks"]:
        at: dict[str, list[str]] = {}
        for choice in _settled(found, task).values():
            for key, value in choice["chosen"].items():
                tried = sorted({each["settings"][key] for each in choice["candidates"] if _is_number(each["settings"][key])})
                if len(tried) > 2 and value in (tried[0], tried[-1]):  # of two one always is
                    which = "largest" if value == tried[-1] else "smallest"
                    at.setdefault(f"the {which} {key} that it tried, {value}", []).append(choice["arm"])
        said += [f"The search took {what}, on {task} for {', '.join(arms)}." for what, arms in at.items()]
    return said


def _settled(found: Record, task: str) -> dict[str, Record]:
    return {choice["arm"]: choice for choice in found["choices"] if choice["task"] == task and choice["chosen"]}


def _lead(choice: Record, key: str, theirs: Any) -> str:
    """By how much the best candidate of an arm is ahead of the best that has the reference's value."""
    means = [(each["settings"][key] == theirs, each["mean"]) for each in choice["candidates"] if each["mean"] is not None]
    with_theirs = [mean for same, mean in means if same]
    return f"{max(mean for _, mean in means) - max(with_theirs):.3f}" if with_theirs else "an unknown amount"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short_of_seeds(found: Record) -> list[str]:
    short = [row for row in found["results"] if row["own"] and 0 < len(row["seeds"]) < len(found["seeds"])]
    if not short or found["progress"]["done"] < found["progress"]["cells"]:
        return []
    return ["Some arms have fewer seeds than planned: " + ", ".join(f"{row['task']} {row['arm']}" for row in short) + "."]


def _plan(found: Record) -> str:
    if not found["plan"]["first"]:
        done = found["progress"]["done"]
        return "No run has been made yet." if not done else "When the first run was made, and by which plan, is not on file."
    first = found["plan"]["first"]
    kept = "Deviations from the plan: " + " ".join(found["deviations"]) if found["deviations"] else ""
    if first["older"]:
        said = f"Not of all runs beforehand: {first['older']} of {first['runs']} were begun before the plan was noted here."
        return f"{said} {kept or 'Since then it has not changed.'}"
    return kept or "The plan was written down before the first run and has not changed since."


def table(found: Record) -> tuple[list[str], list[list[str]]]:
    """Heads and lines, as text: one for every evaluation set, arm and kind that something is known of."""
    heads = ["task", "problems", "arm", "seeds", "", "value", f"minus {found['reference']}", "p (Holm)", "verdict"]
    kinds = [(row, kind) for row in found["results"] for kind in ("avg", "pass") if row["seeds"] and row[kind]]
    return heads, [_line(row, kind, found["num_samples"]) for row, kind in kinds]  # the sentences name the others


def _line(row: Record, kind: str, k: int) -> list[str]:
    value, change = row[kind]["value"], row[kind]["difference"]
    shown = "" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    apart = (signed(change["mean"], change["low"], change["high"]), f"{change['p_holm']:.4f}") if change else ("", "")
    return [row["task"], row["set"], row["arm"], str(len(row["seeds"])), name_of(kind, k), shown, *apart, row[kind]["verdict"]]


def markdown(found: Record) -> str:
    """`findings.md`: the sentences, then the table behind them."""
    heads, lines = table(found)
    said = "".join(f"* {sentence}\n" for sentence in found["findings"])
    rows = [heads, ["---"] * len(heads), *lines]
    shown = "".join(f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |\n" for row in rows)
    return f"{said}\n{shown}" if lines else said


def _can_find(effect: float) -> str:
    if effect >= 1:
        return "A study of this size can find none."
    return f"A study of this size finds a difference of {effect:.3f} four times in five, smaller ones less often."


def name_of(kind: str, k: int) -> str:
    """What the kinds of a result are called."""
    return f"{'Avg' if kind == 'avg' else 'Pass'}@{k}"


def difference(of: Record, name: str) -> str:
    """A difference with its interval, what it is of, its seeds and its corrected p-value."""
    p = of["p_holm"]
    shown = "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"
    return f"{signed(of['mean'], of['low'], of['high'])} ({name}, {of['seeds']} seeds, {shown} after Holm)"


def signed(value: float, *ends: float) -> str:
    """A difference, with its interval where ends are given, in plain text."""
    first, *others = (metrics.signed(each).replace(metrics.MINUS, "-") for each in (value, *ends))
    return f"{first} [{', '.join(others)}]" if others else first
